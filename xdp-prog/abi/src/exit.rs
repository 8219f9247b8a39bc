//! Every way out of the steering program; each packet takes exactly one, and each is counted.

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel gets it, as if there were no program.
    Pass,
    /// Nobody gets it.
    Drop,
    /// The AF_XDP socket of its receive queue gets it.
    Redirect,
}

impl Verdict {
    /// The word for it in documents and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Drop => "drop",
            Self::Redirect => "redirect",
        }
    }
}

macro_rules! exits {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal: $verdict:ident,)+) => {
        /// A way out of the steering program. The value is the index of its counter.
        ///
        /// The order is by verdict, Pass then Drop then Redirect, because the program compares rather than looks up.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Exit {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Exit {
            /// All of them, in the order of their values.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in metrics, in documents and, in capitals after `EXIT_`, in the C program.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What becomes of the packet.
            #[must_use]
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)+ }
            }
        }
    };
}

exits! {
    /// Neither IPv4 nor IPv6, or too short to tell: ARP, LLDP and the like.
    NotIp = "not_ip": Pass,
    /// More than two VLAN tags.
    VlanDepth = "vlan_depth": Pass,
    /// A frame for an Ethernet group. TCP has no business there (RFC 1122, 3.3.6), and the kernel knows that.
    GroupFrame = "group_frame": Pass,
    /// An IP header that is cut short or contradicts itself. The kernel discards it.
    IpMalformed = "ip_malformed": Pass,
    /// IPv6 with more extension headers than are walked, or with one that is cut short.
    Ipv6Chain = "ipv6_chain": Pass,
    /// For an address that is not ours.
    NotLocal = "not_local": Pass,
    /// For our address, but neither TCP nor ICMP.
    NotTcp = "not_tcp": Pass,
    /// ICMP that is no error, or an error about somebody else's flow.
    IcmpOther = "icmp_other": Pass,
    /// A fragment that cannot belong to a flow of ours.
    FragmentPassed = "fragment_passed": Pass,
    /// TCP whose header is cut short. The kernel discards it.
    TcpTruncated = "tcp_truncated": Pass,
    /// TCP for our address and a port that is not ours: ssh, for instance.
    ForeignPort = "foreign_port": Pass,
    /// A SYN to a listener while its queue's shard has never said that it is alive.
    KernelNoBeat = "kernel_no_beat": Pass,
    /// A SYN to a listener while its queue's shard has been silent for too long.
    KernelStale = "kernel_stale": Pass,
    /// A SYN to a listener while we are draining.
    KernelDraining = "kernel_draining": Pass,
    /// For a listener, but of a connection that the kernel has.
    KernelFlow = "kernel_flow": Pass,
    /// For a listener, and the answer to a SYN cookie that the kernel sent.
    KernelCookie = "kernel_cookie": Pass,
    /// Ours, but no AF_XDP socket serves the queue: the process died or does not serve it yet.
    NoSocket = "no_socket": Pass,
    /// For a listener or an upstream port, from a denied source.
    Denied = "denied": Drop,
    /// A SYN to a listener above its source's rate.
    SynLimited = "syn_limited": Drop,
    /// A fragment of what is or could be a flow of ours.
    FragmentDropped = "fragment_dropped": Drop,
    /// A SYN to a listener.
    RedirectedSyn = "redirected_syn": Redirect,
    /// Any other segment to a listener.
    RedirectedSegment = "redirected_segment": Redirect,
    /// A segment to one of our upstream ports.
    RedirectedUpstream = "redirected_upstream": Redirect,
    /// An ICMP error about a flow of ours. The queue is any; user space hands it to the flow's shard.
    RedirectedIcmp = "redirected_icmp": Redirect,
}

impl Exit {
    /// The index of this exit's counter.
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}
