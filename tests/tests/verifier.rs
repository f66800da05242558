//! What the verifier follows in each program: the same for every capture, since a capture is data to the programs.

use anyhow::{Context as _, ensure};
use interceptor::parity::{
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, ebpf_runs_here, tell};
use serde_json::Value;

/// What a connection or datagram begins with, and the most that the verifier may follow there. `steer` is loaded for each
/// workload, and kernels differ most about it: 3,499 in Linux 6.18, 6,675 in 7.3.
const MOST: [(&str, u64); 5] =
    [("connect4", 5_000), ("connect6", 5_000), ("sendmsg4", 5_000), ("sendmsg6", 5_000), ("steer", 8_000)];

#[test]
fn no_capture_makes_the_verifier_follow_more() -> anyhow::Result<()> {
    if !ebpf_runs_here()? {
        return Ok(());
    }
    let cidrs: Vec<String> = (0..5_000).map(|n| format!("10.{}.{}.0/24", n / 250, n % 250)).collect();
    let ports: Vec<String> = (1..2_000).map(|n| (2 * n).to_string()).collect();
    let ids: Vec<String> = (1_000..1_100).map(|n| n.to_string()).collect();
    // Istio takes no more owner groups than this.
    let groups = ids[..64].join(",");
    let (cidrs, ports, ids) = (cidrs.join(","), ports.join(","), ids.join(","));
    let captures: [(&str, &[&str]); 7] = [
        ("everything", &["-i", "*", "-b", "*"]),
        ("many ports", &["-i", "*", "-o", &ports, "-b", &ports]),
        ("5,000 networks", &["-i", &cidrs]),
        ("many ids", &["-i", "*", "-u", &ids, "-g", &ids]),
        ("owner groups", &["-i", "*", "-b", "*"]),
        ("TPROXY", &["-i", "*", "-b", "*", "-m", "TPROXY"]),
        ("DNS", &["-i", "*", "--redirect-dns", "--capture-all-dns"]),
    ];
    let mut first = None;
    for (name, capture) in captures {
        // Owner groups have no flag.
        let groups = if name == "owner groups" { groups.as_str() } else { "" };
        let followed = followed(capture, groups).with_context(|| name.to_owned())?;
        tell(format_args!("{name}: {followed:?}"));
        // The kernel tells of all or of none.
        let tells = followed.iter().any(|(_, instructions)| instructions.is_some());
        for (hook, most) in MOST {
            let (_, instructions) = followed
                .iter()
                .find(|(name, _)| name == hook)
                .with_context(|| format!("there is no {hook}"))?;
            ensure!(
                instructions.map_or(!tells, |n| n < most),
                "the verifier follows {instructions:?} instructions in {hook}"
            );
        }
        assert_eq!(first.get_or_insert_with(|| followed.clone()), &followed, "{name}");
    }
    Ok(())
}

/// Instructions by hook, where the kernel tells (Linux 5.16).
fn followed(capture: &[&str], groups: &str) -> anyhow::Result<Vec<(String, Option<u64>)>> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let mut apply = product.apply_command(Place::Pod, capture)?;
    apply.env("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", groups);
    let output = world.run(None, &mut apply, "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let status = product.status()?;
    let hooks = status["hooks"].as_array().context("no hooks")?.iter();
    let followed = hooks.map(|hook| {
        let name = hook["name"].as_str().unwrap_or_default().to_owned();
        (name, hook.get("verified_instructions").and_then(Value::as_u64))
    });
    let steering = status.get("steering_instructions").and_then(Value::as_u64);
    let followed = followed.chain([("steer".to_owned(), steering)]).collect();
    world.close()?;
    Ok(followed)
}
