//! `--so_flags`: `key=value,...`, where a key is the name of a field of
//! `struct rr_sim_config`, or one of this package's own:
//!
//! - `seed`: of every random choice. Default: 1.
//! - `cap`: how far virtual time may go. Default: 4000 s.
//!
//! Numbers take the suffixes K, M and G (1024 and so on), switches `on` and
//! `off`, times (fields ending in `_ns`, which may be left out of the key) the
//! suffixes ns, us, ms and s. Keys are 32 hexadecimal digits. In texts a `+` stands for a comma.

use core::ffi::c_char;
use core::mem::offset_of;
use ringroad::ffi::{RR_OFF, RR_ON, rr_sim_config};
use std::ffi::CString;

include!(concat!(env!("OUT_DIR"), "/fields.rs"));

/// Where a field lies, and of which type it is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Number(usize),
    Long(usize),
    Text(usize),
    /// 16 bytes.
    Key(usize),
}

/// What the flags say.
#[derive(Debug)]
pub(crate) struct Flags {
    pub(crate) config: rr_sim_config,
    pub(crate) seed: u64,
    /// In nanoseconds.
    pub(crate) cap: u64,
    /// What pointers in `config` point to.
    _texts: Vec<CString>,
}

impl Flags {
    /// Reads flags over the defaults.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        // SAFETY: numbers and pointers, all of which may be zero.
        let mut config: rr_sim_config = unsafe { core::mem::zeroed() };
        config.size = size_of::<rr_sim_config>() as u32;
        config.raw_ip = 1;
        // Scripts inject segments larger than the MTU, as offloading drivers hand
        // them to the kernel.
        config.frame_size = u16::MAX.into();
        config.frames = 2048;
        let mut flags = Self { config, seed: 1, cap: 4_000_000_000_000, _texts: Vec::new() };
        flags.add(text)?;
        Ok(flags)
    }

    /// Reads more flags, over what was said before.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), String> {
        for one in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
            let (key, value) = one.split_once('=').ok_or_else(|| format!("{one}: no value"))?;
            self.set(key.trim(), value.trim()).map_err(|why| format!("{one}: {why}"))?;
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        match key {
            "seed" => self.seed = number(value)?,
            "cap" => self.cap = time(value)?,
            _ => {
                let named = |(name, _): &&(&str, Kind)| *name == key || name.strip_suffix("_ns") == Some(key);
                let (_, kind) = FIELDS.iter().find(named).ok_or("no such knob")?;
                self.set_field(*kind, value)?;
            }
        }
        Ok(())
    }

    fn set_field(&mut self, kind: Kind, value: &str) -> Result<(), String> {
        let base = (&raw mut self.config).cast::<u8>();
        match kind {
            Kind::Number(at) => {
                let n = match value {
                    "on" => RR_ON,
                    "off" => RR_OFF,
                    _ => u32::try_from(number(value)?).map_err(|_| "too large")?,
                };
                // SAFETY: the offset of a field of this type in `config`.
                unsafe { base.add(at).cast::<u32>().write(n) };
            }
            Kind::Long(at) => {
                let n = time(value)?;
                // SAFETY: as above.
                unsafe { base.add(at).cast::<u64>().write(n) };
            }
            Kind::Text(at) => {
                let text = CString::new(value.replace('+', ",")).map_err(|_| "a zero byte")?;
                // SAFETY: as above; the text lives as long as `self`.
                unsafe { base.add(at).cast::<*const c_char>().write(text.as_ptr()) };
                self._texts.push(text);
            }
            Kind::Key(at) => {
                let n = u128::from_str_radix(value, 16).ok().filter(|_| value.len() == 32);
                let n = n.ok_or("not 32 hexadecimal digits")?;
                // SAFETY: as above.
                unsafe { base.add(at).cast::<[u8; 16]>().write(n.to_be_bytes()) };
            }
        }
        Ok(())
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scaled(digits: &str, unit: u64) -> Result<u64, String> {
    let n: u64 = digits.parse().map_err(|_| "not a number")?;
    n.checked_mul(unit).ok_or_else(|| "too large".into())
}

fn number(text: &str) -> Result<u64, String> {
    if let Some(hex) = text.strip_prefix("0x") {
        return u64::from_str_radix(hex, 16).map_err(|_| "not a number".into());
    }
    let (digits, suffix) = split(text);
    let shift = match suffix {
        "" => 0,
        "K" | "k" => 10,
        "M" => 20,
        "G" => 30,
        _ => return Err("the suffixes are K, M and G".into()),
    };
    scaled(digits, 1 << shift)
}

/// A time in nanoseconds.
fn time(text: &str) -> Result<u64, String> {
    let (digits, suffix) = split(text);
    let unit = match suffix {
        "" | "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err("the suffixes are ns, us, ms and s".into()),
    };
    scaled(digits, unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ffi::CStr;

    #[test]
    fn flags_reach_the_fields_of_their_name() {
        let f = Flags::read("mtu=1280, tcp_sack=off,tcp_min_rto=300ms,tcp_send_buffer=16K,seed=7").unwrap();
        assert_eq!((f.config.mtu, f.config.tcp_sack, f.config.tcp_send_buffer), (1280, RR_OFF, 16384));
        assert_eq!((f.config.tcp_min_rto_ns, f.seed), (300_000_000, 7));
        assert_eq!(f.config.size as usize, size_of::<rr_sim_config>());
        let f = Flags::read("address=10.0.0.1/8+10.1.0.1/8,tcp_time_wait_ns=1s,cap=9s").unwrap();
        // SAFETY: the text that was just set.
        assert_eq!(unsafe { CStr::from_ptr(f.config.address) }, c"10.0.0.1/8,10.1.0.1/8");
        assert_eq!((f.config.tcp_time_wait_ns, f.cap), (1_000_000_000, 9_000_000_000));
    }

    #[test]
    fn every_number_and_text_of_the_configuration_is_a_knob() {
        // What is no knob: size, the Ethernet address and its padding.
        let known: usize = FIELDS
            .iter()
            .map(|(_, kind)| match kind {
                Kind::Number(_) => 4,
                Kind::Long(_) | Kind::Text(_) => 8,
                Kind::Key(_) => 16,
            })
            .sum();
        let rest = size_of::<rr_sim_config>() - known;
        assert!((4 + 6 + 2..4 + 6 + 2 + 4 * 8).contains(&rest), "{rest} bytes are no knob's");
        assert!(FIELDS.len() > 80);
    }

    #[test]
    fn wrong_flags_are_refused_by_name() {
        for (text, word) in [
            ("mtu", "no value"),
            ("nonsense=1", "no such knob"),
            ("mtu=big", "suffixes"),
            ("mtu=", "not a number"),
            ("mtu=5G", "too large"),
            ("tcp_min_rto=1h", "suffixes"),
            ("mac=1", "no such knob"),
            ("size=1", "no such knob"),
        ] {
            let why = Flags::read(text).unwrap_err();
            assert!(why.contains(word) && why.starts_with(text), "{why}");
        }
    }
}
