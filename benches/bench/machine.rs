//! What the machine is, and what its cores did meanwhile.

use std::fs;
use std::process::Command;

use super::result::Machine;

/// Clock ticks in a second, the unit of `/proc/stat`.
pub fn ticks_per_second() -> f64 {
    // SAFETY: takes no pointers.
    unsafe { libc::sysconf(libc::_SC_CLK_TCK) as f64 }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|l| l.strip_prefix("Cpus_allowed_list:"));
    let found = parse_list(list.unwrap_or("0"));
    if found.is_empty() { vec![0] } else { found }
}

/// `0-2,5` as numbers.
fn parse_list(text: &str) -> Vec<usize> {
    let mut all = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.trim().parse::<usize>(), last.trim().parse()) {
            all.extend(first..=last);
        }
    }
    all
}

/// The machine as it is now. The server has the last core, the client the first,
/// and a thread beside the server's worker the last but one, where there are three.
pub fn look() -> Machine {
    let cores = cores();
    let (client_core, server_core) = (cores[0], cores[cores.len() - 1]);
    let thread_core = if cores.len() > 2 { cores[cores.len() - 2] } else { server_core };
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let date = super::bed::run(Command::new("date").args(["-u", "+%F %H:%M UTC"])).unwrap_or_default();
    Machine {
        date: date.trim().to_string(),
        kernel: format!("Linux {}", release.trim()),
        processor: model.map_or("unknown", |m| m.1).to_string(),
        cores: cores.len(),
        server_core,
        client_core,
        thread_core,
        mode: String::new(),
        offloads: Vec::new(),
        load: load.split(' ').next().unwrap_or("").to_string(),
    }
}

/// What some cores have done so far, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ticks {
    pub all: u64,
    pub softirq: u64,
    pub steal: u64,
}

impl std::ops::Add for Ticks {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            all: self.all + other.all,
            softirq: self.softirq + other.softirq,
            steal: self.steal + other.steal,
        }
    }
}

impl Ticks {
    /// Of this core, until now.
    pub fn of(core: usize) -> Self {
        Self::read(&fs::read_to_string("/proc/stat").unwrap_or_default(), core)
    }

    /// From the text of `/proc/stat`: `cpuN user nice system idle iowait irq softirq steal ...`.
    fn read(stat: &str, core: usize) -> Self {
        let mut sum = Self::default();
        for line in stat.lines() {
            let Some((name, rest)) = line.split_once(' ') else { continue };
            let number = name.strip_prefix("cpu").and_then(|n| n.parse::<usize>().ok());
            if number == Some(core) {
                // Guest time, behind the eighth field, is part of user time.
                let ticks: Vec<u64> = rest.split_whitespace().take(8).filter_map(|f| f.parse().ok()).collect();
                sum.all += ticks.iter().sum::<u64>();
                sum.softirq += ticks.get(6).copied().unwrap_or(0);
                sum.steal += ticks.get(7).copied().unwrap_or(0);
            }
        }
        sum
    }

    /// Since `before`.
    pub fn since(self, before: Self) -> Self {
        Self {
            all: self.all.saturating_sub(before.all),
            softirq: self.softirq.saturating_sub(before.softirq),
            steal: self.steal.saturating_sub(before.steal),
        }
    }

    /// Stolen time, in percent.
    pub fn steal_percent(self) -> f64 {
        100.0 * self.steal as f64 / self.all.max(1) as f64
    }

    /// Time in soft interrupts, in seconds.
    pub fn softirq_seconds(self) -> f64 {
        self.softirq as f64 / ticks_per_second()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores() {
        assert_eq!(parse_list("\t0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(parse_list("7"), [7]);
    }

    #[test]
    fn ticks_of_the_cores_that_are_named() {
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 4 5 6 7 8 100 100\ncpu1 10 0 0 80 0 0 4 6 0 0\ncpu10 1 1 1 1 1 1 1 1 0 0\n";
        let zero = Ticks::read(stat, 0);
        assert_eq!(zero, Ticks { all: 36, softirq: 7, steal: 8 });
        let both = zero + Ticks::read(stat, 1);
        assert_eq!(both, Ticks { all: 136, softirq: 11, steal: 14 });
        let part = both.since(zero);
        assert_eq!(part.steal_percent(), 6.0);
        assert_eq!(part.softirq_seconds(), 4.0 / ticks_per_second());
    }
}
