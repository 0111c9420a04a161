//! Finds the servers of a table by their names, for the table that comes after it.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::shared::server_row::ServerRow;
use crate::shared::servers::ServerTable;
use crate::upstream::ids::Server;

/// The servers of a table, by upstream and address.
#[derive(Debug)]
pub(crate) struct ServerNames<'t> {
    table: &'t ServerTable,
    servers: HashMap<(String, String), Server>,
}

impl<'t> ServerNames<'t> {
    pub(crate) fn of(table: &'t ServerTable) -> Self {
        let text = table.text();
        let (mut upstream, mut names) = ("", Vec::new());
        for line in text.lines() {
            match line.split_once('\t') {
                Some(("upstream", name)) => upstream = name,
                Some(("server", name)) => names.push((upstream.to_owned(), name.to_owned())),
                _ => {}
            }
        }
        let servers = table.upstreams().flat_map(|upstream| table.servers(upstream));
        Self { table, servers: names.into_iter().zip(servers).collect() }
    }

    /// The settings and the health of a server.
    pub(crate) fn row(&self, upstream: &str, address: &str) -> Option<&'t ServerRow> {
        let server = self.servers.get(&(upstream.to_owned(), address.to_owned()))?;
        Some(self.table.row(*server))
    }

    /// The addresses of a name, in whatever upstream it is.
    pub(crate) fn addresses(&self, name: &str) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        if let Some((_, server)) = self.servers.iter().find(|((_, address), _)| address == name) {
            self.table.addresses(*server, &mut addresses);
        }
        addresses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::ids::{ServerId, UpstreamId};

    #[test]
    fn a_server_is_found_by_upstream_and_address() {
        let text =
            "listen\t:80\nupstream\ta\nserver\tx:80\nupstream\tb\nserver\tx:80\nserver\ty:81\n";
        let table = ServerTable::create([1, 2], 1, text).unwrap();
        let y = Server { upstream: UpstreamId(1), id: ServerId(1) };
        let address: SocketAddr = "192.0.2.1:81".parse().unwrap();
        table.publish_addresses(y, &[address]);
        let names = ServerNames::of(&table);
        assert!(std::ptr::eq(names.row("b", "y:81").unwrap(), table.row(y)));
        assert!(names.row("a", "x:80").is_some() && names.row("a", "y:81").is_none());
        assert_eq!(names.addresses("y:81"), [address]);
        assert!(names.addresses("z:1").is_empty());
    }
}
