//! Namespaces that come and go: nothing is left of them.
//!
//! `INTERCEPTOR_CHURN_NAMESPACES` makes the run longer.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::ensure;
use interceptor::{
    agent::WorkloadSpec,
    parity::world::{Layout, Namespace, World},
};
use interceptor_tests::{Product, agent::Home, count, kept::Kept, tell};

/// A leak is what remains after this.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
fn short_lived_namespaces_leave_nothing() -> anyhow::Result<()> {
    let namespaces: usize = count("INTERCEPTOR_CHURN_NAMESPACES", 60)?;
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let home = Home::new()?;
    let agent = home.start(&world, &product)?;
    let at_rest = agent.descriptors()?;
    let client = home.client(&product)?;
    let pass = |namespaces: usize| -> anyhow::Result<()> {
        for number in 0..namespaces {
            let namespace = Namespace::create()?;
            let capture = br#"{"pid": 1, "capture": {"istio-service-cidr": "*", "ipv6": "off"}}"#;
            let spec = WorkloadSpec {
                netns: Some(namespace.path()),
                pid: None,
                ..WorkloadSpec::from_json(capture)?
            };
            client.enrol(&format!("short-{number}").parse()?, &spec)?;
        }
        home.wait_until(&product, <[_]>::is_empty)?;
        agent.wait_for_descriptors(at_rest)
    };
    pass(20)?;
    let before = (Kept::of(&product)?, agent.resident_kib()?);
    pass(namespaces)?;
    // The kernel frees what was given up a moment later, and tells nobody.
    let deadline = Instant::now() + DEADLINE;
    while Kept::of(&product)? != before.0 {
        ensure!(Instant::now() < deadline, "was {:?} and is {:?}", before.0, Kept::of(&product)?);
        thread::sleep(Duration::from_millis(10));
    }
    tell(format_args!("{namespaces} namespaces; before and after {:?}, {at_rest} descriptors", before.0));
    tell(format_args!("resident memory of the agent: {} KiB, then {} KiB", before.1, agent.resident_kib()?));
    let status = product.status()?;
    assert_eq!(status["workloads"].as_array().map(Vec::len), Some(0), "{status:#}");
    for folder in
        [product.state_dir().join("v1/workloads"), home.run().join("kept"), home.run().join("enrolled")]
    {
        assert_eq!(fs::read_dir(&folder)?.count(), 0, "{}", folder.display());
    }
    agent.stop()?;
    world.close()
}
