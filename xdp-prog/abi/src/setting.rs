//! The cells by which user space tells the program how to behave, while it runs.

/// A 64-bit cell of the settings map. Only user space writes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Setting {
    /// How old a beat may be, in ns, before its queue's new connections go to the kernel.
    StaleAfterNs,
    /// Not 0: new connections go to the kernel.
    Draining,
    /// Time between two SYNs of one source at its rate, in ns; 0 switches the limit off.
    SynIntervalNs,
    /// How far a source may run ahead of its rate, in ns: (burst - 1) intervals.
    SynToleranceNs,
    /// Kernel flows whose SYN is not younger than this, in ns of CLOCK_MONOTONIC, are known to be gone.
    KernelFlowsGoneNs,
}

impl Setting {
    /// All of them, in the order of their values.
    pub const ALL: &'static [Self] = &[
        Self::StaleAfterNs,
        Self::Draining,
        Self::SynIntervalNs,
        Self::SynToleranceNs,
        Self::KernelFlowsGoneNs,
    ];

    /// The name in the C program, in capitals there and after `SETTING_`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::StaleAfterNs => "stale_after_ns",
            Self::Draining => "draining",
            Self::SynIntervalNs => "syn_interval_ns",
            Self::SynToleranceNs => "syn_tolerance_ns",
            Self::KernelFlowsGoneNs => "kernel_flows_gone_ns",
        }
    }

    /// The index of this cell.
    #[must_use]
    pub const fn index(self) -> u32 {
        self as u32
    }
}
