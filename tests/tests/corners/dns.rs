//! DNS queries of many servers, through a real resolver in the proxy's place.

use std::{
    env,
    ffi::OsStr,
    fs,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use interceptor::parity::{
    backend::Backend,
    plan::{Family, Host, Place},
    proxy,
    world::World,
};
use interceptor_tests::interceptor;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

use crate::{
    account::Account,
    stage::{Corner, NO_PROXY},
};

const RESOLVED: Corner =
    Corner { flags: &["--redirect-dns", "--capture-all-dns"], prepare: start_resolver, ..NO_PROXY };

/// Servers asked from each socket at once.
const SERVERS: u8 = 3;
/// Sockets that ask at the same time.
const SOCKETS: u16 = 50;
/// Queries of each socket to each server: 10,050 in all.
const ROUNDS: u16 = 67;
/// What the resolver knows, beside its addresses.
const NAME: &str = "service.example";
const PORT: u16 = 15053;

#[test]
fn no_answer_is_lost_or_comes_from_another_server() -> anyhow::Result<()> {
    RESOLVED.holds(|account| {
        if !is_resolver_up(account)? {
            return Ok(());
        }
        for family in [Family::V4, Family::V6] {
            let asking: Vec<_> =
                (0..SOCKETS).map(|_| thread::spawn(move || ask_all_servers(family))).collect();
            let mut answered = 0;
            for socket in asking {
                answered += socket.join().map_err(|_panic| anyhow!("a socket's thread panicked"))??;
            }
            account.note(&format!("{family:?}.answered by the server asked"), answered);
        }
        Ok(())
    })
}

#[test]
fn the_resolver_of_glibc_finds_what_it_asks_for() -> anyhow::Result<()> {
    RESOLVED.holds(|account| {
        if !is_resolver_up(account)? {
            return Ok(());
        }
        let _servers = ask_these_servers()?;
        run(account, "getent", Command::new("getent").args(["ahosts", NAME]))
    })
}

#[test]
fn the_resolver_of_musl_finds_what_it_asks_for() -> anyhow::Result<()> {
    RESOLVED.holds(|account| {
        if !is_resolver_up(account)? {
            return Ok(());
        }
        let folder = TempDir::new()?;
        let (source, program) = (folder.path().join("ask.c"), folder.path().join("ask"));
        fs::write(&source, ASK)?;
        let built = Command::new("musl-gcc").arg("-static").arg("-o").args([&program, &source]).output();
        match built {
            Ok(built) => ensure!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr)),
            Err(error) => {
                account.skipped = Some(format!("there is no musl-gcc: {error}"));
                return Ok(());
            }
        }
        let _servers = ask_these_servers()?;
        run(account, "musl", Command::new(&program).arg(NAME))
    })
}

#[test]
fn dig_hears_the_server_it_asked() -> anyhow::Result<()> {
    RESOLVED.holds(|account| {
        if !is_resolver_up(account)? {
            return Ok(());
        }
        for server in [server(Family::V4, 2).ip(), server(Family::V6, 3).ip()] {
            for way in ["+notcp", "+tcp"] {
                let server = format!("@{server}");
                let asked = ["+short", "+tries=1", way, server.as_str(), NAME];
                run(account, &format!("dig {way} {server}"), Command::new("dig").args(asked))?;
            }
        }
        Ok(())
    })
}

/// musl asks every server at once, for both kinds of address, from one socket.
const ASK: &str = r#"
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
int main(int count, char **words) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int error = getaddrinfo(words[1], "80", &hints, &found);
    if (error) { puts(gai_strerror(error)); return 1; }
    for (; found; found = found->ai_next) {
        char host[64];
        getnameinfo(found->ai_addr, found->ai_addrlen, host, sizeof host, 0, 0, NI_NUMERICHOST);
        puts(host);
    }
}
"#;

fn server(family: Family, number: u8) -> SocketAddr {
    SocketAddr::new(Host::Service(number).address(family), 53)
}

/// Asks each server from one socket, round by round; says how many answers came from where they were asked for.
fn ask_all_servers(family: Family) -> anyhow::Result<u32> {
    let socket = UdpSocket::bind((family.unspecified(), 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut right = 0;
    for round in 0..ROUNDS {
        let id = |number: u8| round * u16::from(SERVERS) + u16::from(number);
        for number in 1..=SERVERS {
            socket.send_to(&query(id(number)), server(family, number))?;
        }
        for _ in 1..=SERVERS {
            let mut answer = [0; 512];
            let (length, from) = socket.recv_from(&mut answer).with_context(|| format!("round {round}"))?;
            let asked = (1..=SERVERS).find(|number| answer.starts_with(&id(*number).to_be_bytes()));
            let asked = asked.context("an answer to no question")?;
            ensure!(from == server(family, asked), "{} answers for {}", from, server(family, asked));
            ensure!(length > query(0).len(), "server {asked} does not know the name");
            right += 1;
        }
    }
    Ok(right)
}

/// A query for the name's IPv4 address (RFC 1035, 4.1).
fn query(id: u16) -> Vec<u8> {
    let mut query = id.to_be_bytes().to_vec();
    // Recursion desired, one question.
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in NAME.split('.') {
        query.push(u8::try_from(label.len()).unwrap_or_default());
        query.extend(label.bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    query
}

/// dnsmasq in the proxy's place; where there is none, nobody listens there.
fn start_resolver(world: &World, _: Backend) -> anyhow::Result<()> {
    let Some(dnsmasq) = dnsmasq() else { return Ok(()) };
    let mut dnsmasq = world.command(&interceptor(), Place::Pod, proxy::OWNER, dnsmasq)?;
    dnsmasq.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=", "--group="]);
    dnsmasq.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--port", &PORT.to_string()]);
    for family in [Family::V4, Family::V6] {
        let loopback: IpAddr = Host::Loopback(1).address(family);
        dnsmasq.arg(format!("--listen-address={loopback}"));
        dnsmasq.arg(format!("--host-record={NAME},{}", Host::Service(1).address(family)));
    }
    world.spawn(dnsmasq.stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(())
}

fn dnsmasq() -> Option<PathBuf> {
    let paths = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&paths).map(|folder| folder.join("dnsmasq")).find(|path| path.exists())
}

/// Waits until the resolver listens; notes why there is nothing to see if there is none.
fn is_resolver_up(account: &mut Account) -> anyhow::Result<bool> {
    if dnsmasq().is_none() {
        account.skipped = Some("there is no dnsmasq".to_owned());
        return Ok(false);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let resolver = SocketAddr::new(Host::Loopback(1).address(Family::V6), PORT);
    while TcpStream::connect(resolver).is_err() {
        ensure!(Instant::now() < deadline, "dnsmasq does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(true)
}

/// Has the calling thread, and what it starts, find all servers in a resolv.conf of its own.
fn ask_these_servers() -> anyhow::Result<TempDir> {
    let folder = TempDir::new()?;
    let file = folder.path().join("resolv.conf");
    let servers = (1..=SERVERS).map(|number| format!("nameserver {}\n", server(Family::V4, number).ip()));
    fs::write(&file, servers.collect::<String>())?;
    unshare(CloneFlags::CLONE_NEWNS)?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some(&file), Path::new("/etc/resolv.conf"), nothing, MsFlags::MS_BIND, nothing)?;
    Ok(folder)
}

/// Runs a program that asks, and notes what it found.
fn run(account: &mut Account, name: &str, command: &mut Command) -> anyhow::Result<()> {
    let program = command.get_program().to_owned();
    match command.output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            account.note(name, format!("{}, {:?}", output.status, said.lines().collect::<Vec<_>>()));
            ensure!(output.status.success(), "{name} found nothing: {said}");
        }
        Err(error) => account.skipped = Some(format!("there is no {}: {error}", OsStr::display(&program))),
    }
    Ok(())
}
