//! Every feature, with what it is for. Versions are those in which kernel.org released it.

use super::{
    feature::{Check, Feature, Group},
    grade::Engine::{Ebpf, IptablesLegacy, IptablesNft, Nft},
    host,
    netfilter::Symbol,
};
use crate::datapath::trial::{Hook, Shape};

const NAMES: &[&str] = &["getpeername4", "getpeername6", "getsockname4", "getsockname6"];
const CONNECT: &[&str] = &["connect4", "connect6"];
const SEND: &[&str] = &["sendmsg4", "sendmsg6"];
const RECEIVE: &[&str] = &["recvmsg4", "recvmsg6"];
const RECORDS: &[&str] = &[
    "connect4",
    "connect6",
    "getpeername4",
    "getpeername6",
    "getsockname4",
    "getsockname6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "original_dst",
    "socket_events",
];
const NO_PREALLOC: u32 = 1;
const CLONE: u32 = 0x200;
const PREORDER: u32 = 1 << 6;
const BEFORE: u32 = 1 << 3;

const fn bpf(name: &'static str, check: Check, since: &'static str) -> Feature {
    Feature::new(Group::Bpf, name, check).since(since)
}

const fn system(name: &'static str, check: fn(&host::Host) -> super::Finding) -> Feature {
    Feature::new(Group::System, name, Check::Host(check))
}

const fn part(name: &'static str, function: &'static str, module: &'static str) -> Feature {
    Feature::new(Group::Netfilter, name, Check::Netfilter(Symbol { function, module }))
}

const fn tool(name: &'static str) -> Feature {
    Feature::new(Group::Netfilter, name, Check::Tool(name))
}

const fn shape(kind: u32, key: u32, value: u32, entries: u32, flags: u32) -> Shape {
    Shape { kind, key, value, entries, flags }
}

/// Helpers by their numbers in linux/bpf.h.
mod helper {
    pub(super) const MAP_LOOKUP_ELEM: u16 = 1;
    pub(super) const GET_CURRENT_UID_GID: u16 = 15;
    pub(super) const GET_SOCKET_COOKIE: u16 = 46;
    pub(super) const SOCK_OPS_CB_FLAGS_SET: u16 = 59;
    pub(super) const BIND: u16 = 64;
    pub(super) const SOCK_HASH_UPDATE: u16 = 70;
    pub(super) const SK_RELEASE: u16 = 86;
    pub(super) const SK_STORAGE_GET: u16 = 107;
    pub(super) const SK_STORAGE_DELETE: u16 = 108;
    pub(super) const GET_NETNS_COOKIE: u16 = 122;
    pub(super) const SK_ASSIGN: u16 = 124;
    pub(super) use crate::datapath::trial::SET_RETVAL;
}

pub(super) static FEATURES: [Feature; 79] = [
    system("CAP_BPF", host::may_load)
        .serves("load BPF programs (CAP_SYS_ADMIN will do)")
        .without_it("no eBPF backend, and most of this table stays unknown")
        .needed_by(&[Ebpf]),
    system("CAP_NET_ADMIN", host::may_administer_network)
        .serves("attach network hooks, load nat rules")
        .without_it("nothing can be intercepted by any backend")
        .needed_by(&[Ebpf, IptablesNft, IptablesLegacy, Nft]),
    system("CAP_SYS_ADMIN", host::may_enter)
        .serves("enter the workload's namespace, mount bpffs")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("CAP_SYS_PTRACE", host::may_trace)
        .serves("find listeners that are older than the interception")
        .without_it("a proxy must be started after `apply`")
        .gains("older listeners"),
    system("cgroup v2", host::cgroup2)
        .serves("the hooks of processes are attached to it")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("no net_cls, net_prio", host::no_network_controllers)
        .serves("before Linux 5.15, using them makes sockets lose their cgroup v2")
        .without_it("on such kernels the hooks pass the sockets of processes in these v1 cgroups"),
    system("bpffs", host::bpffs)
        .serves("keeps programs and maps in force without a process")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("memory for maps", host::memory)
        .serves("tables of workloads and connections; a limit counts before Linux 5.11")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("SO_NETNS_COOKIE", host::namespace_cookie)
        .since("5.14")
        .serves("names a workload by a number that is never reused")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("pidfd_getfd", host::descriptor_copies)
        .since("5.6")
        .serves("find listeners that are older than the interception")
        .without_it("a proxy must be started after `apply`")
        .gains("older listeners"),
    system("JIT", host::compiler)
        .serves("runs BPF programs as machine code")
        .without_it("programs are interpreted, about ten times slower")
        .gains("speed"),
    system("no lockdown", host::no_lockdown)
        .serves("mode `confidentiality` forbids BPF programs to read kernel memory")
        .without_it("nothing here; tools that trace BPF programs see less"),
    system("IPv6", host::ipv6)
        .serves("workloads with IPv6 addresses")
        .without_it("nothing where workloads have none"),
    bpf("cgroup/connect4", Check::Hook(Hook::Connect4), "4.17")
        .serves("redirects IPv4 connections")
        .without_it("no eBPF backend")
        .in_programs(&["connect4"]),
    bpf("cgroup/connect6", Check::Hook(Hook::Connect6), "4.17")
        .serves("redirects IPv6 connections")
        .without_it("no eBPF backend")
        .in_programs(&["connect6"]),
    bpf("cgroup/getpeername4", Check::Hook(Hook::GetPeerName4), "5.8")
        .serves("shows an application the peer it asked for")
        .without_it("no eBPF backend")
        .in_programs(&["getpeername4"]),
    bpf("cgroup/getpeername6", Check::Hook(Hook::GetPeerName6), "5.8")
        .serves("the same for IPv6")
        .without_it("no eBPF backend")
        .in_programs(&["getpeername6"]),
    bpf("cgroup/getsockname4", Check::Hook(Hook::GetSockName4), "5.8")
        .serves("shows a proxy the local address that nat would give")
        .without_it("no eBPF backend")
        .in_programs(&["getsockname4"]),
    bpf("cgroup/getsockname6", Check::Hook(Hook::GetSockName6), "5.8")
        .serves("the same for IPv6")
        .without_it("no eBPF backend")
        .in_programs(&["getsockname6"]),
    bpf("cgroup/sendmsg4", Check::Hook(Hook::SendMsg4), "4.18")
        .serves("redirects DNS queries")
        .without_it("no eBPF backend")
        .in_programs(&["sendmsg4"]),
    bpf("cgroup/sendmsg6", Check::Hook(Hook::SendMsg6), "4.18")
        .serves("the same for IPv6")
        .without_it("no eBPF backend")
        .in_programs(&["sendmsg6"]),
    bpf("cgroup/recvmsg4", Check::Hook(Hook::RecvMsg4), "5.2")
        .serves("shows DNS answers as the resolver's")
        .without_it("no eBPF backend")
        .in_programs(&["recvmsg4"]),
    bpf("cgroup/recvmsg6", Check::Hook(Hook::RecvMsg6), "5.2")
        .serves("the same for IPv6")
        .without_it("no eBPF backend")
        .in_programs(&["recvmsg6"]),
    bpf("cgroup/getsockopt", Check::Hook(Hook::GetSockOpt), "5.3")
        .serves("answers SO_ORIGINAL_DST")
        .without_it("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("sock_ops", Check::Hook(Hook::SockOps), "4.13")
        .serves("follows a connection from the client's socket to the proxy's")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sk_lookup", Check::Hook(Hook::SkLookup), "5.9")
        .serves("brings arriving connections to the proxy")
        .without_it("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("ingress_ifindex in sk_lookup", Check::Context(Hook::SkLookup, 64), "5.17")
        .serves("tells the interface a connection arrives on")
        .without_it("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("netns cookie in connect", Check::Helper(Hook::Connect4, helper::GET_NETNS_COOKIE), "5.7")
        .serves("knows the workload of a connecting socket")
        .without_it("no eBPF backend")
        .in_programs(CONNECT),
    bpf("netns cookie in sendmsg", Check::Helper(Hook::SendMsg4, helper::GET_NETNS_COOKIE), "5.7")
        .serves("knows the workload of a socket that sends a datagram")
        .without_it("no eBPF backend")
        .in_programs(SEND),
    bpf("netns cookie in recvmsg", Check::Helper(Hook::RecvMsg4, helper::GET_NETNS_COOKIE), "5.7")
        .serves("knows the workload of a socket that receives one")
        .without_it("no eBPF backend")
        .in_programs(RECEIVE),
    bpf("netns cookie in getsockname", Check::Helper(Hook::GetSockName4, helper::GET_NETNS_COOKIE), "5.8")
        .serves("knows the workload of a socket whose name is asked")
        .without_it("no eBPF backend")
        .in_programs(NAMES),
    bpf("netns cookie in getsockopt", Check::Helper(Hook::GetSockOpt, helper::GET_NETNS_COOKIE), "5.15")
        .serves("knows the workload of a socket whose options are asked")
        .without_it("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("netns cookie in sock_ops", Check::Helper(Hook::SockOps, helper::GET_NETNS_COOKIE), "5.15")
        .serves("keeps connections of different workloads apart")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("socket cookie in sock_ops", Check::Helper(Hook::SockOps, helper::GET_SOCKET_COOKIE), "4.13")
        .serves("names a proxy's listener by its socket")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("event flags in sock_ops", Check::Helper(Hook::SockOps, helper::SOCK_OPS_CB_FLAGS_SET), "4.16")
        .serves("hears of a socket's end")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("uid and gid in connect", Check::Helper(Hook::Connect4, helper::GET_CURRENT_UID_GID), "4.17")
        .serves("tells the proxy's connections from the application's")
        .without_it("no eBPF backend")
        .in_programs(CONNECT),
    bpf("uid and gid in sendmsg", Check::Helper(Hook::SendMsg4, helper::GET_CURRENT_UID_GID), "4.18")
        .serves("tells the proxy's queries from the application's")
        .without_it("no eBPF backend")
        .in_programs(SEND),
    bpf("bind in connect", Check::Helper(Hook::Connect4, helper::BIND), "4.17")
        .serves("keeps the source address that nat would leave")
        .without_it("no eBPF backend")
        .in_programs(CONNECT),
    bpf("set_retval in connect", Check::Helper(Hook::Connect4, helper::SET_RETVAL), "5.18")
        .serves("refuses a connection with a telling errno")
        .without_it("a connection that cannot be redirected fails with EPERM")
        .gains("telling errors"),
    bpf("sk_storage in connect", Check::Helper(Hook::Connect4, helper::SK_STORAGE_GET), "5.2")
        .serves("keeps the original destination with the client's socket")
        .without_it("no eBPF backend")
        .in_programs(CONNECT),
    bpf("sk_storage_delete in connect", Check::Helper(Hook::Connect4, helper::SK_STORAGE_DELETE), "5.2")
        .serves("forgets a connection that failed")
        .without_it("no eBPF backend")
        .in_programs(CONNECT),
    bpf("sk_storage in sendmsg", Check::Helper(Hook::SendMsg4, helper::SK_STORAGE_GET), "5.2")
        .serves("notes which server a socket asked")
        .without_it("no eBPF backend")
        .in_programs(SEND),
    bpf("sk_storage in recvmsg", Check::Helper(Hook::RecvMsg4, helper::SK_STORAGE_GET), "5.2")
        .serves("shows the answer as that server's")
        .without_it("no eBPF backend")
        .in_programs(RECEIVE),
    bpf("sk_storage in getsockname", Check::Helper(Hook::GetSockName4, helper::SK_STORAGE_GET), "5.8")
        .serves("reads it where names are asked")
        .without_it("no eBPF backend")
        .in_programs(NAMES),
    bpf("sk_storage in getsockopt", Check::Helper(Hook::GetSockOpt, helper::SK_STORAGE_GET), "5.3")
        .serves("reads it where options are asked")
        .without_it("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("sk_storage in sock_ops", Check::Helper(Hook::SockOps, helper::SK_STORAGE_GET), "5.2")
        .serves("hands it to the proxy's socket")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sock_hash_update in sock_ops", Check::Helper(Hook::SockOps, helper::SOCK_HASH_UPDATE), "4.18")
        .serves("notes a proxy's listener when it begins to listen")
        .without_it("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sk_assign in sk_lookup", Check::Helper(Hook::SkLookup, helper::SK_ASSIGN), "5.9")
        .serves("chooses the listener of an arriving connection")
        .without_it("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("sk_release in sk_lookup", Check::Helper(Hook::SkLookup, helper::SK_RELEASE), "5.9")
        .serves("gives a listener back that was not chosen")
        .without_it("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("map look-up in sk_lookup", Check::Helper(Hook::SkLookup, helper::MAP_LOOKUP_ELEM), "5.9")
        .serves("finds the listener")
        .without_it("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("type information", Check::TypeInformation, "4.18")
        .serves("describes the values kept with sockets")
        .without_it("no eBPF backend")
        .in_programs(RECORDS),
    bpf("memory for functions", Check::MemoryForFunctions, "5.12")
        .serves(
            "parts of a program that the verifier follows by themselves, so that their ways do not multiply",
        )
        .without_it("no eBPF backend")
        .in_programs(&["connect4", "connect6", "sendmsg4", "sendmsg6"]),
    bpf("storage with sockets", Check::SocketStorage(NO_PREALLOC | CLONE), "5.4")
        .serves("keeps what belongs to a connection as long as its socket lives; accepted sockets inherit it")
        .without_it("no eBPF backend")
        .in_programs(RECORDS),
    bpf("LPM trie", Check::Map(shape(11, 8, 4, 1, NO_PREALLOC)), "4.11")
        .serves("a workload's capture and routes")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf(
        "hash of maps",
        Check::MapOfMaps(shape(13, 8, 4, 1, NO_PREALLOC), shape(11, 8, 4, 1, NO_PREALLOC)),
        "4.12",
    )
    .serves("exchanges a workload's whole capture at once")
    .without_it("no eBPF backend")
    .needed_by(&[Ebpf]),
    bpf("per-CPU hash", Check::Map(shape(5, 8, 8, 1, NO_PREALLOC)), "4.6")
        .serves("counters")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("LRU hash", Check::Map(shape(9, 8, 8, 1, 0)), "4.10")
        .serves("DNS servers by the addresses that stand for them")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("sockhash", Check::Map(shape(18, 8, 8, 1, 0)), "5.7")
        .serves("the proxies' listeners")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("ring buffer", Check::Map(shape(27, 0, 0, 4096, 0)), "5.8")
        .serves("tells of single connections as they happen")
        .without_it("no `interceptor trace`")
        .gains("trace"),
    bpf("links to cgroups", Check::Link(Hook::Connect4, 0), "5.7")
        .serves("attaches hooks so that they outlive the command")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("links to namespaces", Check::Link(Hook::SkLookup, 0), "5.9")
        .serves("the same for sk_lookup")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("link update", Check::LinkUpdate, "5.7")
        .serves("puts a new version's programs in place without a gap")
        .without_it("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("order of cgroup programs", Check::Link(Hook::Connect4, BEFORE), "6.17")
        .serves("could place our programs before those of other tools")
        .without_it("the order is that of attaching"),
    bpf("preorder of cgroup programs", Check::Link(Hook::Connect4, PREORDER), "6.15")
        .serves("could run a parent's programs before a child's")
        .without_it("a child cgroup's programs run first"),
    part("conntrack", "nf_conntrack_in", "nf_conntrack")
        .serves("nat remembers connections")
        .without_it("no nat backend")
        .needed_by(&[IptablesNft, IptablesLegacy, Nft]),
    part("nf_tables", "nf_tables_newrule", "nf_tables")
        .serves("rules of nft, and of iptables on most systems")
        .without_it("no nft backend; iptables only with legacy tables")
        .needed_by(&[IptablesNft, Nft]),
    part("nft nat chains", "nft_nat_do_chain", "nft_chain_nat")
        .serves("nf_tables' chains of type nat")
        .without_it("no nft backend; iptables only with legacy tables")
        .needed_by(&[IptablesNft, Nft]),
    part("nft counter", "nft_counter_init", "nft_counter")
        .serves("iptables over nf_tables counts by each rule")
        .without_it("iptables only with legacy tables")
        .needed_by(&[IptablesNft]),
    part("nft redirect", "nft_redir_init", "nft_redir")
        .serves("redirects by nft")
        .without_it("no nft backend")
        .needed_by(&[Nft]),
    part("nft compat", "nft_target_init", "nft_compat")
        .serves("iptables' targets and matches in nf_tables")
        .without_it("iptables only with legacy tables")
        .needed_by(&[IptablesNft]),
    part("legacy nat table", "iptable_nat_table_init", "iptable_nat")
        .serves("iptables-legacy")
        .without_it("iptables only over nf_tables")
        .needed_by(&[IptablesLegacy]),
    part("legacy nat table for IPv6", "ip6table_nat_table_init", "ip6table_nat")
        .serves("iptables-legacy over IPv6")
        .without_it("iptables-legacy for IPv4 alone"),
    part("tcp", "tcp_mt", "xt_tcpudp")
        .serves("iptables' match of ports")
        .without_it("no iptables backend")
        .needed_by(&[IptablesNft, IptablesLegacy]),
    part("REDIRECT", "redirect_tg4", "xt_REDIRECT")
        .serves("iptables' target")
        .without_it("no iptables backend")
        .needed_by(&[IptablesNft, IptablesLegacy]),
    part("owner", "owner_mt", "xt_owner")
        .serves("iptables' match that spares the proxy")
        .without_it("no iptables backend")
        .needed_by(&[IptablesNft, IptablesLegacy]),
    part("TPROXY", "tproxy_tg4", "xt_TPROXY")
        .serves("interception mode TPROXY by a nat backend")
        .without_it("a nat backend cannot do mode TPROXY"),
    tool("iptables-nft-restore")
        .serves("loads iptables' rules over nf_tables")
        .without_it("iptables only with legacy tables")
        .needed_by(&[IptablesNft]),
    tool("iptables-legacy-restore")
        .serves("loads iptables' rules into its own tables")
        .without_it("iptables only over nf_tables")
        .needed_by(&[IptablesLegacy]),
    tool("nft").serves("loads nft's rules").without_it("no nft backend").needed_by(&[Nft]),
];
