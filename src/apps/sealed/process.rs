//! Which process holds a lock, and whether it still lives. A number alone does not tell: numbers come again, and after
//! a restart of the machine all of them do.

use data_encoding::HEXLOWER;

/// One process, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMark {
    /// Its number.
    pub pid: u32,
    /// When it was started, in clock ticks since the machine was.
    pub start_ticks: u64,
    /// The machine's start: random for each.
    pub boot: [u8; 16],
}

/// Knows processes.
pub trait Processes: Send + Sync {
    /// This process.
    fn me(&self) -> ProcessMark;
    /// Whether that very process lives.
    fn is_alive(&self, mark: &ProcessMark) -> bool;
}

/// The machine's processes, from `/proc`.
#[derive(Debug, Default)]
pub struct SystemProcesses;

impl Processes for SystemProcesses {
    fn me(&self) -> ProcessMark {
        let pid = std::process::id();
        ProcessMark { pid, start_ticks: start_ticks(pid).unwrap_or(0), boot: boot() }
    }

    fn is_alive(&self, mark: &ProcessMark) -> bool {
        mark.boot == boot() && start_ticks(mark.pid) == Some(mark.start_ticks)
    }
}

/// The field `starttime` of `/proc/PID/stat`; what precedes it may hold spaces, but ends with a parenthesis.
fn start_ticks(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X");
    let ticks = fields.nth(18)?.parse().ok()?;
    (!dead).then_some(ticks)
}

fn boot() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    HEXLOWER.decode(digits.as_bytes()).ok().and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
}
