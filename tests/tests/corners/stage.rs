//! One world a backend for each corner, and the comparison of what was seen in them.

use std::{net::SocketAddr, process::Stdio};

use anyhow::{Context as _, bail, ensure};
use interceptor::parity::{
    actor::Actor,
    backend::Backend,
    catalogue::{APP_PORTS, INJECTED, SERVICE_PORTS},
    plan::{Family, Host, Place},
    proxy,
    scenario::{APP, ROOT},
    world::{Layout, World},
};
use interceptor_tests::{Product, inside, interceptor, skipped, tell};

use crate::account::Account;

/// What iptables and eBPF are held against each other with.
const BACKENDS: [Backend; 2] = [Backend::IptablesNft, Backend::Ebpf];

/// What a corner asks of its worlds.
#[derive(Clone, Copy)]
pub(crate) struct Corner {
    /// Flags of the capture beside the injector's.
    pub(crate) flags: &'static [&'static str],
    /// Flags of `apply` that only eBPF has a use for.
    pub(crate) ebpf_flags: &'static [&'static str],
    /// Where the proxy listens.
    pub(crate) proxy: Listening,
    /// Whether the proxy listens before interception begins.
    pub(crate) proxy_is_first: bool,
    /// Where it is acted.
    pub(crate) place: Place,
    /// Sysctls of the pod's namespace, set from the start.
    pub(crate) sysctls: &'static [(&'static str, &'static str)],
    /// More of them, set when everybody listens.
    pub(crate) late_sysctls: &'static [(&'static str, &'static str)],
    /// What is done once interception is in force.
    pub(crate) prepare: fn(&World, Backend) -> anyhow::Result<()>,
    /// What acts is given this as its standard input.
    pub(crate) input: fn(&World) -> anyhow::Result<Stdio>,
    /// A reason that eBPF must have counted.
    pub(crate) counted: Option<&'static str>,
    /// Facts that differ on purpose: name, value under iptables and under eBPF.
    pub(crate) differs: &'static [(&'static str, &'static str, &'static str)],
}

/// Where a proxy listens.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Listening {
    /// On every address.
    Anywhere,
    /// On the loopback addresses alone.
    OnLoopback,
    /// Nowhere: who acts may be the proxy itself.
    Nowhere,
}

/// The corner of an ordinary pod, whose proxy runs.
pub(crate) const ORDINARY: Corner = Corner {
    flags: &[],
    ebpf_flags: &[],
    proxy: Listening::Anywhere,
    proxy_is_first: false,
    place: Place::Pod,
    sysctls: &[],
    late_sysctls: &[],
    prepare: |_, _| Ok(()),
    input: |_| Ok(Stdio::null()),
    counted: None,
    differs: &[],
};

/// The same with nobody listening on the proxy's ports, for those who listen there themselves.
pub(crate) const NO_PROXY: Corner = Corner { proxy: Listening::Nowhere, ..ORDINARY };

impl Corner {
    /// Has `act` act as an application of root's, under iptables and under eBPF; both must see the same, but
    /// for what differs on purpose.
    pub(crate) fn holds(&self, act: fn(&mut Account) -> anyhow::Result<()>) -> anyhow::Result<()> {
        if inside::is_inside() {
            let mut account = Account::default();
            act(&mut account)?;
            // One that was started from inside has nobody to tell.
            return if inside::part().is_none() { inside::leave(&account) } else { Ok(()) };
        }
        let mut accounts = Vec::new();
        for backend in BACKENDS {
            accounts.push(self.account(backend).with_context(|| format!("under {backend}"))?);
        }
        let [under_iptables, under_ebpf] = accounts.as_slice() else { bail!("one account a backend") };
        if let Some(reason) = under_iptables.skipped.as_ref().or(under_ebpf.skipped.as_ref()) {
            skipped(&anyhow::anyhow!("{reason}"));
            return Ok(());
        }
        self.compare(&under_iptables.facts, &under_ebpf.facts)
    }

    /// Builds a world, has it acted in, and collects what everybody saw.
    fn account(&self, backend: Backend) -> anyhow::Result<Account> {
        let world = World::build(Layout::default())?;
        let product = Product::new(&world)?;
        if let Some(skipped) = set_in_pod(&world, self.sysctls)? {
            return Ok(skipped);
        }
        let mut proxy = Actor::start(&world, &interceptor(), Place::Pod, proxy::OWNER)?;
        let [outbound, inbound] =
            [proxy::OUTBOUND_PORT, proxy::INBOUND_PORT].map(|port| self.proxy.addresses(port));
        if self.proxy_is_first {
            proxy.proxy(&outbound, &inbound)?;
            self.apply(&world, backend)?;
        } else {
            self.apply(&world, backend)?;
            proxy.proxy(&outbound, &inbound)?;
        }
        let mut server = Actor::start(&world, &interceptor(), Place::Peer, APP.owner)?;
        server.serve("peer", &any(&SERVICE_PORTS), &[])?;
        let mut application = Actor::start(&world, &interceptor(), Place::Pod, APP.owner)?;
        application.serve("application", &any(&APP_PORTS), &[])?;
        if let Some(skipped) = set_in_pod(&world, self.late_sysctls)? {
            return Ok(skipped);
        }
        (self.prepare)(&world, backend)?;

        let mut account: Account = inside::run(&world, self.place, ROOT.owner, (self.input)(&world)?)?;
        for (who, actor) in [("proxy", &mut proxy), ("peer", &mut server), ("application", &mut application)]
        {
            let sightings = actor.sightings()?;
            account.note(&format!("{who}.accepted"), sightings.len());
            for (number, sighting) in sightings.iter().enumerate() {
                account.sighting(&format!("{who}[{number}]"), sighting);
            }
        }
        if let Some(reason) = self.counted.filter(|_| backend == Backend::Ebpf && account.skipped.is_none()) {
            let status = product.status()?;
            let counts = status["workloads"][0]["connections"].as_array().context("there are no counters")?;
            ensure!(
                counts.iter().any(|count| count["reason"] == reason),
                "{reason} was not counted: {counts:?}"
            );
        }
        world.close()?;
        Ok(account)
    }

    fn apply(&self, world: &World, backend: Backend) -> anyhow::Result<()> {
        let ebpf_flags = if backend == Backend::Ebpf { self.ebpf_flags } else { &[] };
        let flags = [INJECTED.as_slice(), &["--dual-stack"], self.flags, ebpf_flags].concat();
        backend.apply(world, &interceptor(), Place::Pod, flags.as_slice())
    }

    fn compare(
        &self,
        under_iptables: &[(String, String)],
        under_ebpf: &[(String, String)],
    ) -> anyhow::Result<()> {
        let names =
            |facts: &[(String, String)]| facts.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let value = |facts: &[(String, String)], name: &str| {
            facts.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value).to_owned()
        };
        let mut all = names(under_iptables);
        all.extend(names(under_ebpf).into_iter().filter(|name| !names(under_iptables).contains(name)));
        let mut wrong = Vec::new();
        for name in &all {
            let seen = (value(under_iptables, name), value(under_ebpf, name));
            // What only one proxy or server has accepted is told by how many each has.
            let accepted = name.split_once('[').map(|(who, _)| format!("{who}.accepted"));
            let counts_differ = accepted.is_some_and(|accepted| {
                self.differs.iter().any(|(other, iptables, ebpf)| *other == accepted && iptables != ebpf)
            });
            let wanted = self.differs.iter().find(|(other, ..)| other == name);
            let right = match wanted {
                Some((_, iptables, ebpf)) => seen == ((*iptables).to_owned(), (*ebpf).to_owned()),
                None => seen.0 == seen.1 || counts_differ,
            };
            let (iptables, ebpf) = seen;
            let line = if iptables == ebpf {
                format!("{name}: {iptables}")
            } else {
                format!("{name}: iptables {iptables:?}, ebpf {ebpf:?}")
            };
            tell(format_args!("{line}"));
            if !right {
                wrong.push(line);
            }
        }
        for (name, ..) in self.differs {
            ensure!(all.iter().any(|other| other == name), "{name}, which should differ, was not seen");
        }
        ensure!(wrong.is_empty(), "not as decided:\n{}", wrong.join("\n"));
        Ok(())
    }
}

impl Listening {
    fn addresses(self, port: u16) -> Vec<SocketAddr> {
        match self {
            Self::Anywhere => any(&[port]),
            Self::OnLoopback => [Family::V4, Family::V6]
                .map(|family| SocketAddr::new(Host::Loopback(1).address(family), port))
                .to_vec(),
            Self::Nowhere => Vec::new(),
        }
    }
}

/// Sets sysctls of the pod's namespace. Where one belongs to the whole machine, there is nothing to see.
fn set_in_pod(world: &World, sysctls: &[(&str, &str)]) -> anyhow::Result<Option<Account>> {
    for (name, value) in sysctls {
        let set = || Ok(std::fs::write(format!("/proc/sys/{name}"), value));
        if let Err(error) = world.namespace(Place::Pod)?.enter(set)? {
            let skipped = Some(format!("{name} cannot be set for one namespace: {error}"));
            return Ok(Some(Account { skipped, ..Account::default() }));
        }
    }
    Ok(None)
}

fn any(ports: &[u16]) -> Vec<SocketAddr> {
    let both =
        |port: &u16| [Family::V4, Family::V6].map(|family| SocketAddr::new(family.unspecified(), *port));
    ports.iter().flat_map(both).collect()
}
