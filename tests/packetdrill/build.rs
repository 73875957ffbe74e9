//! Reads the fields of `struct rr_sim_config` in the C header, so that every knob
//! is a flag by its own name.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs};

const HEADER: &str = "../../include/ringroad.h";

fn main() {
    println!("cargo:rerun-if-changed={HEADER}");
    println!("cargo:rerun-if-changed=build.rs");
    let header = fs::read_to_string(HEADER).expect("include/ringroad.h");
    let body = header
        .split_once("struct rr_sim_config {")
        .and_then(|(_, rest)| rest.split_once("\n};"))
        .map(|(body, _)| body)
        .expect("the header has struct rr_sim_config");
    let mut table = String::from("pub(crate) const FIELDS: &[(&str, Kind)] = &[\n");
    for line in body.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with("//")) {
        let declared = line.strip_suffix(';').expect("one field a line");
        let (kind, name) = if let Some(name) = declared.strip_prefix("uint32_t ") {
            ("Number", name)
        } else if let Some(name) = declared.strip_prefix("uint64_t ") {
            ("Long", name)
        } else if let Some(name) = declared.strip_prefix("const char *") {
            ("Text", name)
        } else if let Some(name) = declared.strip_prefix("uint8_t ").and_then(|n| n.strip_suffix("[16]")) {
            ("Key", name)
        } else {
            continue; // the Ethernet address, which raw IP has no use for, and padding
        };
        if name != "size" {
            writeln!(table, "    (\"{name}\", Kind::{kind}(offset_of!(rr_sim_config, {name}))),")
                .expect("a string takes it");
        }
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("fields.rs"), table).expect("OUT_DIR is writable");
}
