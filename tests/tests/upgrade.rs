//! Another build takes over what is in force; what somebody removed by hand is mended or refused.

use std::{fs, path::Path, process::Command};

use anyhow::ensure;
use aya::maps::MapInfo;
use interceptor::parity::{
    catalogue::INJECTED,
    plan::Place,
    world::{Layout, World},
};
use interceptor_tests::{Product, build::other_build, interceptor, traffic::Traffic};

const UPGRADES: usize = 6;

fn apply(world: &World, product: &Product<'_>, build: &Path) -> anyhow::Result<String> {
    let command = product.apply_command(Place::Pod, &INJECTED)?;
    let mut of_build = Command::new(build);
    of_build.env_clear().args(command.get_args());
    let output = world.run(None, &mut of_build, "")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

/// The program of each hook's link, and the link.
fn hooks(product: &Product<'_>) -> anyhow::Result<Vec<(String, u64, u64)>> {
    let status = product.status()?;
    let hooks = status["hooks"].as_array().cloned().unwrap_or_default();
    let number = |value: &serde_json::Value| value.as_u64().unwrap_or_default();
    Ok(hooks
        .iter()
        .map(|hook| {
            (
                hook["name"].as_str().unwrap_or_default().to_owned(),
                number(&hook["link"]),
                number(&hook["program"]),
            )
        })
        .collect())
}

#[test]
fn another_build_replaces_its_programs_in_the_same_links() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let folder = tempfile::tempdir()?;
    let other = other_build(&interceptor(), folder.path())?;
    apply(&world, &product, &interceptor())?;
    let before = hooks(&product)?;
    apply(&world, &product, &other)?;
    let after = hooks(&product)?;
    for ((name, link, program), (_, same_link, new_program)) in before.iter().zip(&after) {
        assert_eq!(link, same_link, "{name}");
        assert_ne!(program, new_program, "{name}");
    }
    // The same build again finds nothing to do.
    let again = apply(&world, &product, &other)?;
    assert!(again.contains("nothing changed"), "{again}");
    assert_eq!(hooks(&product)?, after);
    world.close()
}

#[test]
fn connections_notice_nothing_of_an_upgrade() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    let folder = tempfile::tempdir()?;
    let builds = [other_build(&interceptor(), folder.path())?, interceptor()];
    apply(&world, &product, &interceptor())?;
    let pods = [(1, world.namespace(Place::Pod)?.clone())];
    Traffic::prepare(&world, &pods)?
        .flow_during(|| (0..UPGRADES).try_for_each(|n| apply(&world, &product, &builds[n % 2]).map(drop)))?;
    world.close()
}

#[test]
fn a_newer_layout_is_refused_with_a_sentence() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    fs::create_dir_all(product.state_dir().join("v999"))?;
    let error = product.apply(Place::Pod, &INJECTED).expect_err("it is of another layout").to_string();
    assert!(error.contains("v999") && error.contains("uninstall"), "{error}");
    assert!(!product.state_dir().join("v1").exists(), "nothing was made beside it");
    product.uninstall()?;
    assert!(!product.state_dir().exists());
    world.close()
}

/// Whatever single pin is removed by hand, `apply` brings everything back, with the same maps where they still live.
#[test]
fn any_pin_removed_by_hand_is_mended() -> anyhow::Result<()> {
    let world = World::build(Layout::default())?;
    let product = Product::new(&world)?;
    product.apply(Place::Pod, &INJECTED)?;
    let folder = product.state_dir().join("v1");
    let pins = || -> anyhow::Result<Vec<String>> {
        let mut pins = Vec::new();
        for part in ["maps", "links", "workloads"] {
            for pin in fs::read_dir(folder.join(part))? {
                pins.push(format!("{part}/{}", pin?.file_name().to_string_lossy()));
            }
        }
        pins.sort();
        Ok(pins)
    };
    let all = pins()?;
    let map_ids = || -> anyhow::Result<Vec<(String, u32)>> {
        let maps = all.iter().filter(|pin| pin.starts_with("maps/") && !pin.ends_with("LABELS"));
        maps.map(|pin| Ok((pin.clone(), MapInfo::from_pin(folder.join(pin))?.id()))).collect()
    };
    let ids = map_ids()?;
    for pin in &all {
        fs::remove_file(folder.join(pin))?;
        if pin.starts_with("maps/") {
            let error = product.status().expect_err("a map is missing").to_string();
            assert!(error.contains(pin) && error.contains("apply"), "{error}");
        }
        product.apply(Place::Pod, &INJECTED)?;
        assert_eq!(pins()?, all, "after removing {pin}");
        assert_eq!(map_ids()?, ids, "after removing {pin}");
    }
    let hooks = hooks(&product)?;
    assert!(hooks.iter().all(|(_, link, _)| *link != 0), "{hooks:?}");
    world.close()
}
