//! From the file of middle proxies to addresses: names resolved, and a family chosen for each.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use mtproxy_core::dc::PreferIp;
use mtproxy_core::middle_proxy::cluster_file::{ClusterFile, Host, TargetEntry};
use tracing::{info, warn};

use super::super::lookup::{self, Answer, PATIENCE};

/// Middle proxies by the data centre that they serve.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clusters {
    /// The cluster for data centres without one of their own.
    pub default: i16,
    /// Each cluster with its targets, in the order of the file. One none of whose names could be resolved is empty.
    pub by_id: Vec<(i16, Vec<Target>)>,
}

impl Clusters {
    /// Every target of every cluster; one that several share comes as often.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.by_id.iter().flat_map(|(_, targets)| targets)
    }
}

/// One middle proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// Fewest links that are kept open to it.
    pub min_connections: u16,
    /// Most links to it.
    pub max_connections: u16,
}

/// The names' addresses as they were last known.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: BTreeMap<String, SocketAddr>,
    /// What was complained about already, so that each is said once.
    reported: BTreeSet<String>,
}

/// A name and the port to reach it at, as the resolver wants them.
type Question = (String, u16);

impl Names {
    /// The clusters of `file`. Names are looked up, all at once; of each only the first address of the preferred family
    /// counts, as for the official proxy, or of the other if there is none. A name that cannot be resolved keeps
    /// its last address; without one its targets are left out.
    pub(super) fn clusters(&mut self, file: &ClusterFile, prefer_ip: PreferIp) -> Clusters {
        self.clusters_by(file, prefer_ip, |(name, port)| lookup::of_system(name, *port))
    }

    fn clusters_by(
        &mut self,
        file: &ClusterFile,
        prefer_ip: PreferIp,
        lookup: impl Fn(&Question) -> Answer + Copy + Send + 'static,
    ) -> Clusters {
        self.look_up(file, prefer_ip, lookup);
        let target = |entry: &TargetEntry| {
            Some(Target {
                address: self.address(&entry.host, entry.port)?,
                min_connections: entry.min_connections,
                max_connections: entry.max_connections,
            })
        };
        let clusters = file.clusters.iter();
        Clusters {
            default: file.default,
            by_id: clusters
                .map(|cluster| (cluster.id, cluster.targets.iter().filter_map(target).collect()))
                .collect(),
        }
    }

    fn address(&self, host: &Host, port: u16) -> Option<SocketAddr> {
        match host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, port)),
            Host::Name(name) => self.known.get(name).map(|known| SocketAddr::new(known.ip(), port)),
        }
    }

    fn look_up(
        &mut self,
        file: &ClusterFile,
        prefer_ip: PreferIp,
        lookup: impl Fn(&Question) -> Answer + Copy + Send + 'static,
    ) {
        let questions: Vec<Question> =
            names_of(file).into_iter().map(|(name, port)| (name.to_owned(), port)).collect();
        self.known.retain(|name, _| questions.iter().any(|(asked, _)| asked == name));
        let answers = lookup::resolve_all(&questions, lookup, PATIENCE);
        for ((name, _), answer) in questions.into_iter().zip(answers) {
            match answer.map(|addresses| prefer_ip.order(&addresses)) {
                Ok(addresses) => {
                    let Some(first) = addresses.first() else { continue };
                    self.known.insert(name.clone(), *first);
                    if self.reported.remove(&name) {
                        info!(middle_proxy = name, "the middle proxy is resolved now");
                    }
                }
                Err(error) if self.reported.insert(name.clone()) => {
                    let consequence = if self.known.contains_key(&name) {
                        "its last address stays in use"
                    } else {
                        "it is left out until it is"
                    };
                    warn!(
                        middle_proxy = name, %error,
                        "found no address for the middle proxy; {consequence}; check the name and this host's DNS"
                    );
                }
                Err(_) => {}
            }
        }
    }

    /// True if some name of `file` has no address yet, so that it is worth asking again soon.
    pub(super) fn miss_some_of(&self, file: &ClusterFile) -> bool {
        names_of(file).keys().any(|name| !self.known.contains_key(*name))
    }
}

/// True if `file` has names, whose addresses may change while the file stays.
pub(super) fn has_names(file: &ClusterFile) -> bool {
    !names_of(file).is_empty()
}

/// Every name once, with a port that it is used with.
fn names_of(file: &ClusterFile) -> BTreeMap<&str, u16> {
    let targets = file.clusters.iter().flat_map(|cluster| &cluster.targets);
    let named = targets.filter_map(|target| match &target.host {
        Host::Name(name) => Some((name.as_str(), target.port)),
        Host::Ip(_) => None,
    });
    named.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mtproxy_core::middle_proxy::cluster_file::parse;
    use std::io;

    fn file(text: &str) -> ClusterFile {
        parse(text.as_bytes()).unwrap()
    }

    /// A name server for tests.
    fn fake(question: &Question) -> Answer {
        match question.0.as_str() {
            "both.example" => Ok(vec![
                "[2001:db8::1]:1".parse().unwrap(),
                "192.0.2.1:1".parse().unwrap(),
                "192.0.2.2:1".parse().unwrap(),
            ]),
            "six.example" => Ok(vec!["[2001:db8::6]:1".parse().unwrap()]),
            _ => Err(io::Error::other("no such name")),
        }
    }

    fn broken(_: &Question) -> Answer {
        Err(io::Error::other("server failure"))
    }

    fn addresses(clusters: &Clusters, id: i16) -> Vec<String> {
        let (_, targets) = clusters.by_id.iter().find(|(known, _)| *known == id).unwrap();
        targets.iter().map(|target| target.address.to_string()).collect()
    }

    #[test]
    fn only_the_first_address_of_the_preferred_family_counts() {
        let file = file("proxy_for 1 both.example:8888; proxy_for 2 six.example:443;");
        let clusters = Names::default().clusters_by(&file, PreferIp::V4, fake);
        assert_eq!(addresses(&clusters, 1), ["192.0.2.1:8888"]);
        assert_eq!(addresses(&clusters, 2), ["[2001:db8::6]:443"], "better the other family than none");
        let clusters = Names::default().clusters_by(&file, PreferIp::V6, fake);
        assert_eq!(addresses(&clusters, 1), ["[2001:db8::1]:8888"]);
    }

    #[test]
    fn clusters_come_in_the_order_of_the_file_with_their_own_ports() {
        let file = file(
            "default 2; proxy_for 2 192.0.2.1:1; proxy_for -1 [2001:db8::9]:2; proxy_for -1 six.example:3;",
        );
        let clusters = Names::default().clusters_by(&file, PreferIp::V4, fake);
        assert_eq!((clusters.default, clusters.targets().count()), (2, 3));
        assert_eq!(clusters.by_id.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [2, -1]);
        assert_eq!(addresses(&clusters, -1), ["[2001:db8::9]:2", "[2001:db8::6]:3"]);
    }

    #[test]
    fn a_name_that_nobody_knows_is_left_out_and_its_cluster_stays() {
        let file =
            file("proxy_for 1 none.example:1; proxy_for 2 both.example:1; proxy_for 2 none.example:1;");
        let mut names = Names::default();
        let clusters = names.clusters_by(&file, PreferIp::V4, fake);
        assert!(addresses(&clusters, 1).is_empty() && names.miss_some_of(&file));
        assert_eq!(addresses(&clusters, 2), ["192.0.2.1:1"]);
        assert_eq!(names.reported.len(), 1, "it is reported once");
    }

    #[test]
    fn a_name_that_fails_later_keeps_its_last_address() {
        let file = file("proxy_for 1 both.example:1;");
        let mut names = Names::default();
        let before = names.clusters_by(&file, PreferIp::V4, fake);
        assert_eq!(names.clusters_by(&file, PreferIp::V4, broken), before);
        assert!(!names.miss_some_of(&file) && has_names(&file));
    }
}
