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

pub(super) static FEATURES: [Feature; 74] = [
    system("CAP_BPF", host::may_load)
        .purpose("load BPF programs (CAP_SYS_ADMIN will do)")
        .without("no eBPF backend, and most of this table stays unknown")
        .needed_by(&[Ebpf]),
    system("CAP_NET_ADMIN", host::may_administer_network)
        .purpose("attach network hooks, load nat rules")
        .without("nothing can be intercepted by any backend")
        .needed_by(&[Ebpf, IptablesNft, IptablesLegacy, Nft]),
    system("CAP_SYS_ADMIN", host::may_enter)
        .purpose("enter the workload's namespace, mount bpffs")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("CAP_SYS_PTRACE", host::may_trace)
        .purpose("find listeners that are older than the interception")
        .without("a proxy must be started after `apply`")
        .gains("older listeners"),
    system("cgroup v2", host::cgroup2)
        .purpose("the hooks of processes are attached to it")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("no net_cls, net_prio", host::no_network_controllers)
        .purpose("before Linux 5.15, using them makes sockets lose their cgroup v2")
        .without("on such kernels the hooks pass the sockets of processes in these v1 cgroups"),
    system("bpffs", host::bpffs)
        .purpose("keeps programs and maps in force without a process")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("memory for maps", host::memory)
        .purpose("tables of workloads and connections; a limit counts before Linux 5.11")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("SO_NETNS_COOKIE", host::namespace_cookie)
        .since("5.14")
        .purpose("names a workload by a number that is never reused")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    system("pidfd_getfd", host::descriptor_copies)
        .since("5.6")
        .purpose("find listeners that are older than the interception")
        .without("a proxy must be started after `apply`")
        .gains("older listeners"),
    system("JIT", host::compiler)
        .purpose("runs BPF programs as machine code")
        .without("programs are interpreted, about ten times slower")
        .gains("speed"),
    system("no lockdown", host::no_lockdown)
        .purpose("mode `confidentiality` forbids BPF programs to read kernel memory")
        .without("nothing here; tools that trace BPF programs see less"),
    system("IPv6", host::ipv6)
        .purpose("workloads with IPv6 addresses")
        .without("nothing where workloads have none"),
    bpf("cgroup/connect4", Check::Hook(Hook::Connect4), "4.17")
        .purpose("redirects IPv4 connections")
        .without("no eBPF backend")
        .in_programs(&["connect4"]),
    bpf("cgroup/connect6", Check::Hook(Hook::Connect6), "4.17")
        .purpose("redirects IPv6 connections")
        .without("no eBPF backend")
        .in_programs(&["connect6"]),
    bpf("cgroup/getpeername4", Check::Hook(Hook::GetPeerName4), "5.8")
        .purpose("shows an application the peer it asked for")
        .without("no eBPF backend")
        .in_programs(&["getpeername4"]),
    bpf("cgroup/getpeername6", Check::Hook(Hook::GetPeerName6), "5.8")
        .purpose("the same for IPv6")
        .without("no eBPF backend")
        .in_programs(&["getpeername6"]),
    bpf("cgroup/getsockname4", Check::Hook(Hook::GetSockName4), "5.8")
        .purpose("shows a proxy the local address that nat would give")
        .without("no eBPF backend")
        .in_programs(&["getsockname4"]),
    bpf("cgroup/getsockname6", Check::Hook(Hook::GetSockName6), "5.8")
        .purpose("the same for IPv6")
        .without("no eBPF backend")
        .in_programs(&["getsockname6"]),
    bpf("cgroup/sendmsg4", Check::Hook(Hook::SendMsg4), "4.18")
        .purpose("redirects DNS queries")
        .without("no eBPF backend")
        .in_programs(&["sendmsg4"]),
    bpf("cgroup/sendmsg6", Check::Hook(Hook::SendMsg6), "4.18")
        .purpose("the same for IPv6")
        .without("no eBPF backend")
        .in_programs(&["sendmsg6"]),
    bpf("cgroup/recvmsg4", Check::Hook(Hook::RecvMsg4), "5.2")
        .purpose("shows DNS answers as the resolver's")
        .without("no eBPF backend")
        .in_programs(&["recvmsg4"]),
    bpf("cgroup/recvmsg6", Check::Hook(Hook::RecvMsg6), "5.2")
        .purpose("the same for IPv6")
        .without("no eBPF backend")
        .in_programs(&["recvmsg6"]),
    bpf("cgroup/getsockopt", Check::Hook(Hook::GetSockOpt), "5.3")
        .purpose("answers SO_ORIGINAL_DST")
        .without("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("sock_ops", Check::Hook(Hook::SockOps), "4.13")
        .purpose("follows a connection from the client's socket to the proxy's")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sk_lookup", Check::Hook(Hook::SkLookup), "5.9")
        .purpose("brings arriving connections to the proxy")
        .without("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("ingress_ifindex in sk_lookup", Check::Context(Hook::SkLookup, 64), "5.17")
        .purpose("tells the interface a connection arrives on")
        .without("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("netns cookie in connect", Check::Helper(Hook::Connect4, helper::GET_NETNS_COOKIE), "5.7")
        .purpose("knows the workload of a connecting socket")
        .without("no eBPF backend")
        .in_programs(CONNECT),
    bpf("netns cookie in sendmsg", Check::Helper(Hook::SendMsg4, helper::GET_NETNS_COOKIE), "5.7")
        .purpose("knows the workload of a socket that sends a datagram")
        .without("no eBPF backend")
        .in_programs(SEND),
    bpf("netns cookie in recvmsg", Check::Helper(Hook::RecvMsg4, helper::GET_NETNS_COOKIE), "5.7")
        .purpose("knows the workload of a socket that receives one")
        .without("no eBPF backend")
        .in_programs(RECEIVE),
    bpf("netns cookie in getsockname", Check::Helper(Hook::GetSockName4, helper::GET_NETNS_COOKIE), "5.8")
        .purpose("knows the workload of a socket whose name is asked")
        .without("no eBPF backend")
        .in_programs(NAMES),
    bpf("netns cookie in getsockopt", Check::Helper(Hook::GetSockOpt, helper::GET_NETNS_COOKIE), "5.15")
        .purpose("knows the workload of a socket whose options are asked")
        .without("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("netns cookie in sock_ops", Check::Helper(Hook::SockOps, helper::GET_NETNS_COOKIE), "5.15")
        .purpose("keeps connections of different workloads apart")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("socket cookie in sock_ops", Check::Helper(Hook::SockOps, helper::GET_SOCKET_COOKIE), "4.13")
        .purpose("names a proxy's listener by its socket")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("event flags in sock_ops", Check::Helper(Hook::SockOps, helper::SOCK_OPS_CB_FLAGS_SET), "4.16")
        .purpose("hears of a socket's end")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("uid and gid in connect", Check::Helper(Hook::Connect4, helper::GET_CURRENT_UID_GID), "4.17")
        .purpose("tells the proxy's connections from the application's")
        .without("no eBPF backend")
        .in_programs(CONNECT),
    bpf("uid and gid in sendmsg", Check::Helper(Hook::SendMsg4, helper::GET_CURRENT_UID_GID), "4.18")
        .purpose("tells the proxy's queries from the application's")
        .without("no eBPF backend")
        .in_programs(SEND),
    bpf("bind in connect", Check::Helper(Hook::Connect4, helper::BIND), "4.17")
        .purpose("keeps the source address that nat would leave")
        .without("no eBPF backend")
        .in_programs(CONNECT),
    bpf("set_retval in connect", Check::Helper(Hook::Connect4, helper::SET_RETVAL), "5.18")
        .purpose("refuses a connection with a telling errno")
        .without("a connection that cannot be redirected fails with EPERM")
        .gains("telling errors"),
    bpf("sk_storage in connect", Check::Helper(Hook::Connect4, helper::SK_STORAGE_GET), "5.2")
        .purpose("keeps the original destination with the client's socket")
        .without("no eBPF backend")
        .in_programs(CONNECT),
    bpf("sk_storage_delete in connect", Check::Helper(Hook::Connect4, helper::SK_STORAGE_DELETE), "5.2")
        .purpose("forgets a connection that failed")
        .without("no eBPF backend")
        .in_programs(CONNECT),
    bpf("sk_storage in sendmsg", Check::Helper(Hook::SendMsg4, helper::SK_STORAGE_GET), "5.2")
        .purpose("notes which server a socket asked")
        .without("no eBPF backend")
        .in_programs(SEND),
    bpf("sk_storage in recvmsg", Check::Helper(Hook::RecvMsg4, helper::SK_STORAGE_GET), "5.2")
        .purpose("shows the answer as that server's")
        .without("no eBPF backend")
        .in_programs(RECEIVE),
    bpf("sk_storage in getsockname", Check::Helper(Hook::GetSockName4, helper::SK_STORAGE_GET), "5.8")
        .purpose("reads it where names are asked")
        .without("no eBPF backend")
        .in_programs(NAMES),
    bpf("sk_storage in getsockopt", Check::Helper(Hook::GetSockOpt, helper::SK_STORAGE_GET), "5.3")
        .purpose("reads it where options are asked")
        .without("no eBPF backend")
        .in_programs(&["original_dst"]),
    bpf("sk_storage in sock_ops", Check::Helper(Hook::SockOps, helper::SK_STORAGE_GET), "5.2")
        .purpose("hands it to the proxy's socket")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sock_hash_update in sock_ops", Check::Helper(Hook::SockOps, helper::SOCK_HASH_UPDATE), "4.18")
        .purpose("notes a proxy's listener when it begins to listen")
        .without("no eBPF backend")
        .in_programs(&["socket_events"]),
    bpf("sk_assign in sk_lookup", Check::Helper(Hook::SkLookup, helper::SK_ASSIGN), "5.9")
        .purpose("chooses the listener of an arriving connection")
        .without("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("sk_release in sk_lookup", Check::Helper(Hook::SkLookup, helper::SK_RELEASE), "5.9")
        .purpose("gives a listener back that was not chosen")
        .without("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("map look-up in sk_lookup", Check::Helper(Hook::SkLookup, helper::MAP_LOOKUP_ELEM), "5.9")
        .purpose("finds the listener")
        .without("no eBPF backend")
        .in_programs(&["steer"]),
    bpf("type information", Check::TypeInformation, "4.18")
        .purpose("describes the values kept with sockets")
        .without("no eBPF backend")
        .in_programs(RECORDS),
    bpf("storage with sockets", Check::SocketStorage(NO_PREALLOC | CLONE), "5.4")
        .purpose(
            "keeps what belongs to a connection as long as its socket lives; accepted sockets inherit it",
        )
        .without("no eBPF backend")
        .in_programs(RECORDS),
    bpf("LPM trie", Check::Map(shape(11, 8, 4, 1, NO_PREALLOC)), "4.11")
        .purpose("a workload's capture and routes")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf(
        "hash of maps",
        Check::MapOfMaps(shape(13, 8, 4, 1, NO_PREALLOC), shape(11, 8, 4, 1, NO_PREALLOC)),
        "4.12",
    )
    .purpose("exchanges a workload's whole capture at once")
    .without("no eBPF backend")
    .needed_by(&[Ebpf]),
    bpf("per-CPU hash", Check::Map(shape(5, 8, 8, 1, NO_PREALLOC)), "4.6")
        .purpose("counters")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("LRU hash", Check::Map(shape(9, 8, 8, 1, 0)), "4.10")
        .purpose("DNS servers by the addresses that stand for them")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("sockhash", Check::Map(shape(18, 8, 8, 1, 0)), "5.7")
        .purpose("the proxies' listeners")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("ring buffer", Check::Map(shape(27, 0, 0, 4096, 0)), "5.8")
        .purpose("tells of single connections as they happen")
        .without("no `interceptor trace`")
        .gains("trace"),
    bpf("links to cgroups", Check::Link(Hook::Connect4, 0), "5.7")
        .purpose("attaches hooks so that they outlive the command")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("links to namespaces", Check::Link(Hook::SkLookup, 0), "5.9")
        .purpose("the same for sk_lookup")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("link update", Check::LinkUpdate, "5.7")
        .purpose("puts a new version's programs in place without a gap")
        .without("no eBPF backend")
        .needed_by(&[Ebpf]),
    bpf("order of cgroup programs", Check::Link(Hook::Connect4, BEFORE), "6.17")
        .purpose("could place our programs before those of other tools")
        .without("the order is that of attaching"),
    bpf("preorder of cgroup programs", Check::Link(Hook::Connect4, PREORDER), "6.15")
        .purpose("could run a parent's programs before a child's")
        .without("a child cgroup's programs run first"),
    part("conntrack", "nf_conntrack_in", "nf_conntrack")
        .purpose("nat remembers connections")
        .without("no nat backend")
        .needed_by(&[IptablesNft, IptablesLegacy, Nft]),
    part("nf_tables", "nf_tables_newrule", "nf_tables")
        .purpose("rules of nft, and of iptables on most systems")
        .without("no nft backend; iptables only with legacy tables")
        .needed_by(&[IptablesNft, Nft]),
    part("nft redirect", "nft_redir_init", "nft_redir")
        .purpose("redirects by nft")
        .without("no nft backend")
        .needed_by(&[Nft]),
    part("nft compat", "nft_target_init", "nft_compat")
        .purpose("iptables' targets and matches in nf_tables")
        .without("iptables only with legacy tables")
        .needed_by(&[IptablesNft]),
    part("legacy nat table", "iptable_nat_table_init", "iptable_nat")
        .purpose("iptables-legacy")
        .without("iptables only over nf_tables")
        .needed_by(&[IptablesLegacy]),
    part("REDIRECT", "redirect_tg4", "xt_REDIRECT")
        .purpose("iptables' target")
        .without("no iptables backend")
        .needed_by(&[IptablesNft, IptablesLegacy]),
    part("owner", "owner_mt", "xt_owner")
        .purpose("iptables' match that spares the proxy")
        .without("no iptables backend")
        .needed_by(&[IptablesNft, IptablesLegacy]),
    part("TPROXY", "tproxy_tg4", "xt_TPROXY")
        .purpose("interception mode TPROXY by a nat backend")
        .without("a nat backend cannot do mode TPROXY"),
    tool("iptables-nft-restore")
        .purpose("loads iptables' rules over nf_tables")
        .without("iptables only with legacy tables")
        .needed_by(&[IptablesNft]),
    tool("iptables-legacy-restore")
        .purpose("loads iptables' rules into its own tables")
        .without("iptables only over nf_tables")
        .needed_by(&[IptablesLegacy]),
    tool("nft").purpose("loads nft's rules").without("no nft backend").needed_by(&[Nft]),
];
