//! A client that has said all, and goes on listening.

use std::{io::Write as _, net::Shutdown};

use crate::{
    client::{FAMILIES, rest, service_in, tcp},
    stage::ORDINARY,
};

#[test]
fn an_answer_comes_after_the_clients_end() -> anyhow::Result<()> {
    ORDINARY.holds(|account| {
        for family in FAMILIES {
            let (name, to) = (format!("{family:?}"), service_in(family, 1, 80));
            let socket = tcp(to)?;
            account.outcome(&format!("{name}.connect"), &socket.connect(&to.into()));
            (&socket).write_all(b"one\ntwo\nthree\n")?;
            account.outcome(&format!("{name}.shutdown"), &socket.shutdown(Shutdown::Write));
            account.names(&name, &socket);
            account.note(&format!("{name}.rest"), format!("{:?}", rest(&socket.into())?));
        }
        Ok(())
    })
}
