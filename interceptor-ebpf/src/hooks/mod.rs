//! One module a hook.

mod connect;
mod datagrams;
mod names;
mod original_destination;
mod socket_events;
mod steer;
