//! One module a hook.

mod connect;
mod names;
mod original_destination;
mod socket_events;
mod steer;

/// What a cgroup hook returns to let the call go on.
const ALLOW: i32 = 1;
/// What a cgroup hook returns to make the call fail.
const DENY: i32 = 0;
