//! The file of middle proxies. It is downloaded, so it is whatever a server sends.

use mtproxy_core::middle_proxy::cluster_file::parse;

use crate::script::{Script, verbatim};

fn good() -> Vec<Vec<u8>> {
    let files = [
        "# force_probability 10 10\ndefault 2;\nproxy_for 1 149.154.175.50:8888;\nproxy_for -1 149.154.175.50:8888;\n",
        "min_connections 1; max_connections 1000;\nproxy_for 203 [2001:67c:4e8:f002::a]:443;\ntimeout 10000;",
        "proxy\ta.example:1 # why\n;default2;",
    ];
    files.map(|text| text.as_bytes().to_vec()).to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    verbatim(&good())
}

pub(crate) fn run(input: &[u8]) {
    let text = Script::new(input).text(&good());
    match parse(&text) {
        Ok(file) => {
            assert!(
                !file.clusters.is_empty() && file.clusters.iter().all(|cluster| !cluster.targets.is_empty())
            );
            let targets = file.clusters.iter().flat_map(|cluster| &cluster.targets);
            for target in targets {
                let connections = 1..=target.max_connections;
                assert!(connections.contains(&target.min_connections) && target.port > 0, "{target:?}");
            }
        }
        Err(error) => {
            let line =
                text.split(|&byte| byte == b'\n').nth(error.line - 1).expect("a flaw lies in the file");
            assert!(error.column <= line.len() + 1, "and within its line: {error:?}");
            assert!(error.message.len() < 400, "what is shown of it is short: {error:?}");
        }
    }
}
