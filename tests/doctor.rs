//! `ringroad doctor` on beds with and without something to complain of. Needs
//! root, and nft for the firewall's part.

mod bed;

use bed::{Bed, foreign_program, ip, text_of};

fn doctor(bed: &Bed, more: &[&str]) -> (String, i32) {
    let mut args = vec!["doctor", "-i", Bed::OUR_IF];
    args.extend(more);
    let out = bed.in_ours(env!("CARGO_BIN_EXE_ringroad"), &args);
    (text_of(&out), out.status.code().unwrap())
}

/// The line of this topic, without the runs of blanks.
#[track_caller]
fn line(report: &str, topic: &str) -> String {
    let mut lines = report.lines().map(|l| l.split_whitespace().collect::<Vec<_>>());
    let found = lines.find(|words| words.get(1) == Some(&topic));
    found.unwrap_or_else(|| panic!("no line on {topic} in\n{report}")).join(" ")
}

#[test]
fn a_usable_interface_has_no_problem() {
    let bed = Bed::new(1);
    for more in [&[][..], &["--probe"]] {
        let (report, status) = doctor(&bed, more);
        assert_eq!(status, 0, "{report}");
        assert!(report.contains("rr0: 0 problems"), "{report}");
        assert!(line(&report, "interface").starts_with("ok interface rr0 is up, driver veth"));
        assert!(line(&report, "kernel").starts_with("ok kernel Linux "));
        assert!(line(&report, "mode").starts_with("ok mode native XDP"), "{report}");
        assert!(line(&report, "copy").starts_with("warning copy the kernel copies"), "{report}");
        assert_eq!(line(&report, "queues"), "ok queues 1 receive queue, for one worker");
        assert!(line(&report, "checksums").starts_with("warning"), "{report}");
        assert!(line(&report, "firewall").starts_with("ok"), "{report}");
        for topic in ["privileges", "memory", "hugepages", "cpus", "loopback", "xdp", "vlan", "bpf"] {
            assert!(!line(&report, topic).starts_with("problem"), "{report}");
        }
    }
}

#[test]
fn what_stands_in_the_way_is_a_problem() {
    let bed = Bed::new(1);
    ip(&format!("-n {} link set {} mtu 9000", bed.ours, Bed::OUR_IF));
    let (report, _) = doctor(&bed, &[]);
    assert!(line(&report, "mtu").starts_with("ok mtu 9000, in packets of several"), "{report}");
    ip(&format!("-n {} link set {} mtu 65535", bed.ours, Bed::OUR_IF));
    let (report, status) = doctor(&bed, &[]);
    assert_eq!(status, 1, "{report}");
    assert!(line(&report, "mtu").starts_with("problem mtu 65535 is more than"), "{report}");
    ip(&format!("-n {} link set {} mtu 1500", bed.ours, Bed::OUR_IF));

    let object = foreign_program();
    let set = bed.in_ours(
        "ip",
        &["link", "set", "dev", Bed::OUR_IF, "xdpdrv", "obj", object.path(), "sec", "xdp"],
    );
    assert!(set.status.success(), "{}", text_of(&set));
    let (report, status) = doctor(&bed, &["--probe"]);
    assert_eq!(status, 1, "{report}");
    let xdp = line(&report, "xdp");
    assert!(xdp.starts_with("problem xdp rr0: another XDP program is attached (id "), "{xdp}");
    assert!(xdp.contains("name somebody_elses"), "{xdp}");
    bed.in_ours("ip", &["link", "set", "dev", Bed::OUR_IF, "xdp", "off"]);

    ip(&format!("-n {} link set {} down", bed.ours, Bed::OUR_IF));
    let (report, status) = doctor(&bed, &[]);
    assert_eq!(status, 1, "{report}");
    assert!(line(&report, "interface").starts_with("problem interface rr0 is down"), "{report}");

    let out = bed.in_ours(env!("CARGO_BIN_EXE_ringroad"), &["doctor", "-i", "rr9"]);
    assert_eq!(out.status.code(), Some(1));
    assert!(text_of(&out).contains("there is no such interface"));
}

#[test]
fn interrupts_that_a_killed_one_left_are_told_of() {
    let bed = Bed::new(1);
    let (report, _) = doctor(&bed, &[]);
    assert!(!report.contains(" interrupts "), "{report}");
    // As busy polling leaves them, and its note: kernels refuse to poll a veth so.
    let script = format!(
        "cd /sys/class/net/{}; echo 2 >napi_defer_hard_irqs; echo 200000 >gro_flush_timeout; mkdir -pm 700 /run/ringroad
         note=/run/ringroad/interrupts-$(readlink /proc/self/ns/net | tr -dc 0-9)-$(cat ifindex)
         printf 'napi_defer_hard_irqs 0 2\ngro_flush_timeout 30 200000\n' >$note; echo $note",
        Bed::OUR_IF
    );
    let note = bed.in_ours("sh", &["-c", &script]);
    let (report, status) = doctor(&bed, &[]);
    let _ = std::fs::remove_file(text_of(&note).trim());
    assert_eq!(status, 0, "{report}");
    let told = "left by a ringroad that was killed, or had no privileges at its end: napi_defer_hard_irqs is 2 and was 0, gro_flush_timeout is 200000 and was 30";
    assert_eq!(line(&report, "interrupts"), format!("warning interrupts {told}"));
}

#[test]
fn queues_and_firewall_rules_are_warned_of() {
    let bed = Bed::new(2);
    for rule in [
        "add table inet guard",
        "add chain inet guard incoming { type filter hook input priority 0; policy drop; }",
        "add rule inet guard incoming tcp dport 22 accept",
        "add chain inet guard passing { type filter hook forward priority 0; policy drop; }",
    ] {
        let out = bed.in_ours("nft", &rule.split(' ').collect::<Vec<_>>());
        assert!(out.status.success(), "{}", text_of(&out));
    }
    let (report, status) = doctor(&bed, &[]);
    assert_eq!(status, 0, "{report}");
    assert!(line(&report, "queues").starts_with("warning queues 2 receive queues"), "{report}");
    let firewall = line(&report, "firewall");
    assert!(firewall.contains("inet guard incoming (1 rule, policy drop)"), "{report}");
    assert!(!firewall.contains("passing"), "{report}");
}
