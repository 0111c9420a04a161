//! The rights that the processes of a running ktrix keep.

use std::fs;

use crate::support::ktrix::text;
use crate::support::process::Seen;
use crate::support::{Origin, Plan, Response};

/// The value of a line of `/proc/PID/status`.
fn status(process: Seen, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

#[test]
fn workers_and_keeper_keep_no_rights_and_the_master_few() {
    let origin = Origin::answering(|_| Response::ok("x").cache("max-age=60"));
    let plan = Plan::new(&origin);
    let ktrix = plan.start();
    ktrix.get("/").expect_status(200);
    let children = ktrix.wait_children(3);
    for child in children {
        assert_eq!(status(child, "NoNewPrivs"), "1", "{}", child.name());
        assert_eq!(status(child, "Seccomp"), "2", "{}", child.name());
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(child, set), "0000000000000000", "{set} of {}", child.name());
        }
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.pid)).unwrap();
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    assert_eq!(status(ktrix.master, "NoNewPrivs"), "1");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, KILL, SETGID, SETUID, SETPCAP and NET_BIND_SERVICE.
    let kept = u64::from_str_radix(&status(ktrix.master, "CapEff"), 16).unwrap();
    assert_eq!(kept & !0x5ef, 0, "{kept:x}");
}

#[test]
fn a_configuration_may_leave_the_rights_and_says_what_each_process_keeps() {
    let origin = Origin::answering(|_| Response::ok("x"));
    let plan = Plan::new(&origin).set("sandbox", "off");
    let ktrix = plan.start();
    let children = ktrix.wait_children(3);
    assert!(
        children.iter().all(|child| status(*child, "Seccomp") == status(ktrix.master, "Seccomp"))
    );
    let file = plan.config_path().display().to_string();
    let told = text(&plan.run(&["--test", "-v", &file]));
    assert!(told.contains("sandbox: off"), "{told}");
    plan.put("sandbox", "on");
    plan.write_config();
    let told = text(&plan.run(&["--test", "--verbose", &file]));
    for part in ["worker:", "capabilities: none", &plan.cache_dir().display().to_string(), "valid"]
    {
        assert!(told.contains(part), "{part} in {told}");
    }
}
