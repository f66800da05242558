//! sock_ops: carry the original destination from the client's socket to the proxy's, and know the proxy's listeners.

use aya_ebpf::{
    bindings::{
        BPF_ANY, BPF_NOEXIST, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB, BPF_SOCK_OPS_STATE_CB,
        BPF_SOCK_OPS_STATE_CB_FLAG, BPF_SOCK_OPS_TCP_CONNECT_CB, BPF_SOCK_OPS_TCP_LISTEN_CB,
    },
    helpers::generated::bpf_sock_ops_cb_flags_set,
    macros::sock_ops,
    programs::SockOpsContext,
};
use interceptor_ebpf::{
    abi::{Flow, LISTENER_SLOTS, Listener, ListenerKey, Pending, Role, SocketRecord, Switches, Target},
    policy::{Reason, Tables as _},
};

use crate::kernel::{
    context::{Socket, SocketEvent},
    count::count,
    maps::{LISTENERS, PENDING},
    records,
    tables::KernelTables,
};

const TCP_CLOSE: u32 = 7;
const EEXIST: i32 = 17;
/// What a sock_ops program returns when it has nothing to say to the kernel.
const DONE: u32 = 1;

#[sock_ops]
fn socket_events(context: SockOpsContext) -> u32 {
    let event = SocketEvent::new(&context);
    match event.operation() {
        BPF_SOCK_OPS_TCP_CONNECT_CB => connecting(&event),
        BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB => accepted(&event),
        BPF_SOCK_OPS_TCP_LISTEN_CB => listening(&event),
        BPF_SOCK_OPS_STATE_CB if event.argument(1) == TCP_CLOSE => closed(&event),
        _ => {}
    }
    DONE
}

/// The source port is chosen and the SYN not sent: from here the connection has its name.
#[inline(always)]
fn connecting(event: &SocketEvent) {
    let Some(socket) = event.socket() else { return };
    let Some(record) = records::get(socket) else { return };
    if record.role != Role::REDIRECTED && record.role != Role::IMPERSONATING {
        return;
    }
    let workload = event.workload();
    let flow = Flow { workload, client: event.local(), target: Target(event.remote()) };
    let pending = Pending {
        owner: event.socket_cookie(),
        original: record.original,
        listener: record.listener,
        alias: record.alias,
        reserved: [0; 2],
    };
    // Without its entry the SYN finds no listener and is answered by RST: the connection is refused, never misled.
    if PENDING.insert(&flow, &pending, u64::from(BPF_ANY)).is_err() {
        return count(workload, Reason::PendingFull);
    }
    // SAFETY: the helper changes flags of the event's own socket.
    unsafe { bpf_sock_ops_cb_flags_set(event.as_ptr(), BPF_SOCK_OPS_STATE_CB_FLAG as i32) };
}

/// The proxy's socket for a connection exists: it takes over what is known.
#[inline(always)]
fn accepted(event: &SocketEvent) {
    let Some(socket) = event.socket() else { return };
    let Some(record) = records::get(socket).or_else(|| adopt(event, socket)) else { return };
    if record.role != Role::PROXY {
        // Inherited from a listener that was a client before; it says nothing about this socket.
        return records::remove(socket);
    }
    let flow = flow_to(event);
    let Some(pending) = PENDING.get_ptr(&flow) else { return };
    // SAFETY: only the two ends of this one connection touch the entry, and its client is past writing it.
    let pending = unsafe { &*pending };
    // Where nothing was rewritten, the socket's own names are true.
    if !pending.listener.is_transparent() {
        record.original = pending.original;
        record.alias = pending.alias;
    }
    let _already_gone = PENDING.remove(&flow);
}

/// The name of the connection an accepted socket is for.
#[inline(always)]
fn flow_to(event: &SocketEvent) -> Flow {
    Flow { workload: event.workload(), client: event.remote(), target: Target(event.local()) }
}

/// Gives a record to a socket accepted by a listener older than our programs.
#[inline(always)]
fn adopt(event: &SocketEvent, socket: Socket) -> Option<&'static mut SocketRecord> {
    let tables = KernelTables::of(event.workload()).ok()?;
    if !tables.workload().is_proxy_port(event.local_port()) {
        if tables.workload().any(Switches::TPROXY) {
            // The application took a connection that came in its client's name: its entry has done its work.
            let _mostly_absent = PENDING.remove(&flow_to(event));
        }
        return None;
    }
    records::put(socket, &SocketRecord::listening(event.local_port())).then_some(())?;
    records::get(socket)
}

/// A socket began to listen: keep it if it is one of the proxy's.
#[inline(always)]
fn listening(event: &SocketEvent) {
    let workload = event.workload();
    let Ok(tables) = KernelTables::of(workload) else { return };
    let port = event.local_port();
    let Some(socket) = event.socket() else { return };
    if !tables.workload().is_proxy_port(port) {
        return;
    }
    if !records::put(socket, &SocketRecord::listening(port)) {
        return count(workload, Reason::ListenerNotKept);
    }
    let address = event.local().address;
    for listener in Listener::ALL {
        if listener.is_at(&address, port, tables.workload()) {
            keep(event, workload, listener);
        }
    }
}

/// Keeps a listening socket in the first free slot, or in place of one chosen by its cookie when all are taken.
#[inline(always)]
fn keep(event: &SocketEvent, workload: u64, listener: Listener) {
    let mut slot = 0;
    while slot < LISTENER_SLOTS {
        let mut key = ListenerKey { workload, listener, slot };
        // SAFETY: the event's context is valid for this run.
        match LISTENERS.update(&mut key, unsafe { &mut *event.as_ptr() }, u64::from(BPF_NOEXIST)) {
            Ok(()) => return,
            Err(error) if error == -EEXIST => slot += 1,
            Err(_) => return count(workload, Reason::ListenerNotKept),
        }
    }
    let slot = event.socket_cookie() as u32 % LISTENER_SLOTS;
    let mut key = ListenerKey { workload, listener, slot };
    // SAFETY: as above.
    if LISTENERS.update(&mut key, unsafe { &mut *event.as_ptr() }, u64::from(BPF_ANY)).is_err() {
        count(workload, Reason::ListenerNotKept);
    }
}

/// A redirected client's socket is closing; if the proxy never took the connection, its entry goes with it. The
/// kernel says so before the tuple is free for another socket.
#[inline(always)]
fn closed(event: &SocketEvent) {
    let flow = Flow { workload: event.workload(), client: event.local(), target: Target(event.remote()) };
    let Some(pending) = PENDING.get_ptr(&flow) else { return };
    // SAFETY: reading one word of a map value.
    if unsafe { (*pending).owner } == event.socket_cookie() {
        let _already_gone = PENDING.remove(&flow);
    }
}
