//! One virtual machine, from its parts to its scenario's end.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any scenario takes on two busy cores.
const PATIENCE: Duration = Duration::from_secs(300);
/// Two machines at a time would take the cores from each other.
static TURN: Mutex<()> = Mutex::new(());

/// A network card that QEMU imitates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Card {
    /// The driver's module.
    pub(crate) driver: &'static str,
    /// QEMU's name of the device, with its properties.
    pub(crate) device: &'static str,
}

/// With the flag without which the driver refuses zero-copy (VIRTIO_F_ACCESS_PLATFORM).
pub(crate) const VIRTIO: Card =
    Card { driver: "virtio_net", device: "virtio-net-pci,disable-legacy=on,iommu_platform=on" };
/// As most hosts offer it.
pub(crate) const VIRTIO_WITHOUT_IOMMU: Card =
    Card { driver: "virtio_net", device: "virtio-net-pci,disable-legacy=on" };
pub(crate) const IGB: Card = Card { driver: "igb", device: "igb" };
pub(crate) const VMXNET3: Card = Card { driver: "vmxnet3", device: "vmxnet3" };
pub(crate) const E1000E: Card = Card { driver: "e1000e", device: "e1000e" };

/// Boots a machine with two of this card, and runs `scenario` in it behind the prelude.
///
/// # Panics
/// If the scenario fails or does not come to an end: with everything that the guest printed.
#[track_caller]
pub(crate) fn run(card: Card, scenario: &str) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let parts = parts();
    let scratch = Scratch::new();
    let initrd = scratch.path.join("initrd");
    pack(&parts, &scratch.path, &initrd, scenario);
    let began = Instant::now();
    let output = boot(&parts, card, &initrd);
    let status = output.lines().find_map(|line| line.trim().strip_prefix("VM-STATUS "));
    let booted = output.lines().find_map(|line| line.trim().strip_prefix("VM-BOOTED ")).unwrap_or("?");
    let (driver, seconds) = (card.driver, began.elapsed().as_secs_f64());
    eprintln!("{driver}: booted in {booted} s of the guest's clock, done after {seconds:.1} s\n{output}");
    assert_eq!(status, Some("0"), "the scenario failed on {driver}: see above");
}

/// Where `setup` puts what it makes.
fn parts() -> PathBuf {
    let directory = std::env::var_os("MTPROXY_VM").map(PathBuf::from);
    directory.expect("MTPROXY_VM names the directory that tests/vm/setup was given: use make test-vm")
}

struct Scratch {
    path: PathBuf,
}

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("mtproxy-vm-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory for a machine's parts");
        Self { path }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The guest's root, and behind it what differs: our programs and the scenario. The kernel unpacks both.
fn pack(parts: &Path, scratch: &Path, initrd: &Path, scenario: &str) {
    let root = scratch.join("root");
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("bin")).expect("a root");
    fs::write(root.join("scenario"), [include_str!("prelude.sh"), scenario].concat()).expect("a scenario");
    let proxy = std::env::var_os("MTPROXY_BIN").expect("MTPROXY_BIN names the proxy: use make test-vm");
    add(&root, Path::new(&proxy), "mtproxy");
    add(&root, Path::new(env!("CARGO_BIN_EXE_vm-guest")), "vm-guest");
    let script = "find . | cpio -o -H newc --quiet";
    let packed =
        Command::new("sh").args(["-c", script]).current_dir(&root).output().expect("cpio is installed");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
    let mut file = File::create(initrd).expect("an initrd");
    let base = fs::read(parts.join("guest.cpio")).expect("tests/vm/setup made guest.cpio");
    file.write_all(&base).and_then(|()| file.write_all(&packed.stdout)).expect("room for an initrd");
}

/// A program with the libraries that it needs, where it looks for them.
fn add(root: &Path, program: &Path, name: &str) {
    fs::copy(program, root.join("bin").join(name))
        .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    let list = Command::new("ldd").arg(program).output().expect("ldd is installed");
    for library in
        String::from_utf8_lossy(&list.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let place = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(place.parent().expect("a library is in a directory")).expect("a directory");
        fs::copy(library, place).unwrap_or_else(|error| panic!("{library}: {error}"));
    }
}

/// What the guest printed until it ended itself.
fn boot(parts: &Path, card: Card, initrd: &Path) -> String {
    let Card { driver, device } = card;
    let mut qemu = Command::new("timeout");
    qemu.args(["-k", "3", &PATIENCE.as_secs().to_string(), "qemu-system-x86_64"]);
    qemu.args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024"]);
    qemu.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-monitor",
        "none",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    qemu.arg("-kernel").arg(parts.join("vmlinuz")).arg("-initrd").arg(initrd);
    // No mitigations and no checks of the clock: they cost an emulated machine a quarter of its time.
    let settings =
        "console=ttyS0 quiet loglevel=3 panic=-1 mitigations=off tsc=reliable no_timer_check net.ifnames=0";
    qemu.args(["-append", &format!("{settings} vm.driver={driver} vm.peer={driver}")]);
    for n in 1..=2 {
        // A port each: igb's virtual functions need a bus of their own.
        qemu.args(["-device", &format!("pcie-root-port,id=port{n},chassis={n}")]);
        qemu.args(["-netdev", &format!("hubport,id=net{n},hubid=0")]);
        let settings = format!("{device},bus=port{n},netdev=net{n},mac=52:54:00:00:00:0{n}");
        qemu.args(["-device", &settings]);
    }
    let mut qemu = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("tests/vm/setup installed qemu-system-x86_64");
    let mut output = Vec::new();
    qemu.stdout.take().expect("piped").read_to_end(&mut output).expect("QEMU ends");
    let _ = qemu.wait();
    String::from_utf8_lossy(&output).replace('\r', "")
}
