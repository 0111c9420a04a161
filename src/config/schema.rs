//! Every key of the configuration: its kind, bounds, default and meaning, in one table.
//!
//! Resolving takes defaults and bounds from here, and an error message its list of known keys; a
//! test compares the sample (`etc/ktrix.yaml`) and the manual (`man/ktrix.yaml.5`) with it. A new
//! key is a row here, its line in resolving, in the sample and in the manual.

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Directive {
    /// The mapping that contains the key; empty for the top. `NAME` and `[]` stand for any.
    pub section: &'static str,
    /// The key.
    pub key: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// The default as it would be written, or a word for the behaviour without the key.
    pub default: &'static str,
    /// Its effect, in one sentence.
    pub description: &'static str,
}

/// The kind of a value, with its bounds (both included).
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A mapping; the text names the alternatives.
    Section(&'static str),
    /// A list; the text names its entries. A single entry may be written without brackets.
    List(&'static str),
    /// Text; its form is named.
    Text(&'static str),
    /// A number.
    Count(u64, u64),
    /// A number, or `auto`.
    CountOrAuto(u64, u64),
    /// A size with its unit, in bytes.
    Size(u64, u64),
    /// A time with its unit, in milliseconds.
    Duration(u64, u64),
    /// A share, in percent.
    Percent(u64, u64),
    /// `on` or `off`.
    Switch,
    /// One of these words.
    Choice(&'static [&'static str]),
}

impl Kind {
    /// The unit, as the manual names it.
    pub const fn unit(self) -> &'static str {
        match self {
            Self::Section(word) | Self::List(word) | Self::Text(word) => word,
            Self::Count(..) => "count",
            Self::CountOrAuto(..) => "count or auto",
            Self::Size(..) => "size",
            Self::Duration(..) => "duration",
            Self::Percent(..) => "percentage",
            Self::Switch => "on or off",
            Self::Choice(_) => "word",
        }
    }
}

impl Directive {
    /// The whole path of the key, `upstreams.NAME.servers[].weight`.
    pub fn path(&self) -> String {
        match self.section {
            "" => self.key.to_owned(),
            section => format!("{section}.{}", self.key),
        }
    }
}

/// The row of a key.
///
/// # Panics
/// If the table has no such key, which is a mistake of the caller and not of a configuration.
pub(crate) fn directive(section: &str, key: &str) -> &'static Directive {
    let found = DIRECTIVES.iter().find(|row| row.section == section && row.key == key);
    found.expect("every key that is read has its row in the schema")
}

/// The keys of a mapping, in the order of the manual.
pub(crate) fn keys(section: &str) -> impl Iterator<Item = &'static str> + Clone {
    DIRECTIVES.iter().filter(move |row| row.section == section).map(|row| row.key)
}

/// The mapping below this one that has the key, in this one's terms.
pub(crate) fn below(section: &str, key: &str) -> Option<&'static str> {
    let rules = "sites[].routes[].cache";
    // The mappings in which the key for the rules of caching has another path than their rows.
    let hub = match section {
        "cache" => Some("rules"),
        "sites[]" | "sites[].routes[]" => Some("cache"),
        _ => None,
    };
    let rows = || DIRECTIVES.iter().filter(|row| row.key == key);
    if let Some(hub) = hub.filter(|_| rows().any(|row| row.section == rules)) {
        return Some(hub);
    }
    let inner = rows().filter_map(|row| match section {
        "" => Some(row.section),
        _ => row.section.strip_prefix(section)?.strip_prefix('.'),
    });
    inner.filter(|inner| !inner.is_empty()).min_by_key(|inner| inner.len())
}

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const PIB: u64 = 1 << 50;
const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The longest lifetime of a stored response: the limit of RFC 9111 section 1.2.2, in milliseconds,
/// rounded down to days.
pub(crate) const TTL_MS_MAX: u64 = 24_855 * DAY;

/// The limit of workers: a reload has those of two configurations, with a keeper each, within 128 processes.
pub const WORKERS_MAX: u64 = 62;

/// The default limit of a body in memory: a few bodies must not fill a small memory.
const MEMORY_OBJECT_DEFAULT: &str = "1 MiB, at most a sixteenth of cache.memory";
/// The default of the bytes that stay free: a small cache on a small disk must not have to be
/// empty.
const FREE_DEFAULT: &str = "64 MiB, at most a fiftieth of cache.size";

/// The default of the bytes of all bodies: they must not fill the disk.
const BODIES_DEFAULT: &str = "a tenth of the free space of their disk";

const CLIENT_AUTH: Kind = Kind::Choice(&["off", "optional", "required"]);
const RESPONSE_BUFFERING: Kind = Kind::Choice(&["off", "memory", "file"]);

/// The table.
#[rustfmt::skip]
pub const DIRECTIVES: &[Directive] = &[
    row("", "include", Kind::List("paths"), "none", "files and folders with further keys"),
    row("", "user", Kind::Text("user name"), "none", "the user that the workers run as when ktrix is started as root"),
    row("", "sandbox", Kind::Switch, "on", "whether the processes give up all rights that they do not need"),
    row("", "core-dumps", Kind::Switch, "off", "whether a process that crashes leaves a core file"),
    row("", "workers", Kind::CountOrAuto(1, WORKERS_MAX), "auto", "processes that serve; auto is one for each core"),
    row("", "pid", Kind::Text("path or off"), "/run/ktrix.pid as root, else ktrix.pid in cache.path", "the file that holds the master's process id"),
    row("", "listen", Kind::List("addresses"), "8080", "where clients are accepted"),
    row("", "admin", Kind::Section("address, mapping or off"), "off", "where the metrics and the status of ktrix are shown"),
    row("", "via", Kind::Text("name"), "the host's name and a number", "the name of this instance in Via; a request that has passed it before is answered with 508"),
    row("", "tls", Kind::Section("mapping"), "each key's own", "TLS of all listeners"),
    row("", "acme", Kind::Text("path"), "none", "a folder of proofs for ACME challenges, as certbot --webroot and lego --http.webroot fill it"),
    row("", "trusted-proxies", Kind::List("networks or off"), "none", "the proxies whose X-Forwarded-For, -Proto and -Host, or Forwarded, are believed"),
    row("", "log", Kind::Section("mapping or path"), "no access log", "the access log and the error log"),
    row("", "cache", Kind::Section("mapping, path or off"), "off", "the store of responses"),
    row("", "forward", Kind::Section("mapping"), "each key's own", "what the clients of a forward proxy may ask for"),
    row("", "upstream", Kind::Section("name, address or mapping"), "none", "the servers for requests of no site"),
    row("", "upstreams", Kind::Section("mapping of names"), "none", "groups of servers, by name"),
    row("", "sites", Kind::List("mappings"), "none", "hosts and paths, and their upstreams"),
    row("", "timeouts", Kind::Section("mapping"), "each key's own", "bounds on waiting"),
    row("", "limits", Kind::Section("mapping"), "each key's own", "bounds on sizes and counts"),
    //
    row("admin", "listen", Kind::Text("address"), "required", "an IP address with its port, or unix: and a path"),
    row("admin", "allow", Kind::List("networks"), "local", "the clients that get an answer"),
    row("admin", "hosts", Kind::List("names"), "none", "the names of the listener besides its addresses and localhost"),

    row("listen[]", "address", Kind::Text("address"), "required", "an IP address with its port, a port, or unix: and a path"),
    row("listen[]", "permissions", Kind::Text("octal mode"), "0666", "the permissions of a unix socket"),
    row("listen[]", "mode", Kind::Choice(&["http", "tcp", "forward"]), "http", "http answers for the sites; tcp passes the bytes of each connection on to a server; forward is a proxy that clients are set to"),
    row("listen[]", "upstream", Kind::Text("name"), "required without sni", "with mode: tcp, the servers of connections for which sni has none"),
    row("listen[]", "sni", Kind::Section("mapping of names"), "none", "with mode: tcp, upstreams by the name that a client asks for by TLS"),
    row("listen[]", "http2", Kind::Switch, "on", "whether a connection may speak HTTP/2"),
    row("listen[]", "owner", Kind::Text("user or user:group"), "the master's user", "the owner of a unix socket"),
    row("listen[]", "tls", Kind::Section("on, off or mapping"), "off", "whether clients speak TLS, and how"),
    row("listen[]", "proxy-protocol", Kind::List("networks or off"), "off", "the peers that must send a PROXY header; other peers are refused"),
    row("listen[].tls", "certificates", Kind::List("mappings"), "those of the sites", "certificates; the name that a client asks for chooses, and the first is the default"),
    row("listen[].tls.certificates[]", "certificate", Kind::Text("path"), "required", "a PEM file with the certificate and those of its issuers behind it"),
    row("listen[].tls.certificates[]", "key", Kind::Text("path"), "the file of the certificate", "a PEM file with the private key"),
    row("listen[].tls", "client-auth", CLIENT_AUTH, "off, or required with client-ca", "whether clients are asked for a certificate: not, or they may show one, or they must"),
    row("listen[].tls", "client-ca", Kind::List("paths"), "none", "PEM files with the authorities that issue the certificates of clients, or folders of such files"),
    row("listen[].tls", "client-depth", Kind::Count(0, 6), "1", "certificates between that of a client and an authority at most"),
    row("listen[].tls", "client-crl", Kind::List("paths"), "none", "files with lists of revoked certificates (CRLs), or folders of such files"),
    row("listen[].tls", "versions", Kind::List("versions"), "[1.2, 1.3]", "the versions of TLS"),
    //
    row("tls", "ticket-lifetime", Kind::Duration(2 * SECOND, 7 * DAY), "12h", "how long a client can resume a session at least"),
    row("tls", "ticket-keys", Kind::Text("path"), "secrets that ktrix makes", "a file of secrets for session tickets, which several machines may share"),
    //
    row("forward", "clients", Kind::List("networks or off"), "loopback", "the clients that may use the forward proxy"),
    row("forward", "users", Kind::Text("path or off"), "off", "a file of users and bcrypt hashes of their passwords (htpasswd -B); a client must be one of them"),
    row("forward", "ports", Kind::List("ports"), "80", "the ports of the servers that requests for http may be for"),
    row("forward", "connect-ports", Kind::List("ports"), "443", "the ports of the servers that CONNECT may lead to"),
    row("forward", "hosts", Kind::List("hosts"), "any", "the hosts that clients may ask for"),
    row("forward", "deny", Kind::List("private, loopback, link-local, networks or off"), "[private, loopback, link-local]", "addresses of servers that ktrix does not connect to, whatever their name is"),
    row("forward", "via", Kind::Switch, "on", "whether requests and responses have a Via of ktrix"),
    row("forward", "forwarded", Kind::Switch, "off", "whether servers get the address of the client, in Forwarded and X-Forwarded-For"),
    row("forward", "destinations", Kind::Count(1, 65_536), "1000", "the most hosts that a worker has connections to at once"),
    row("forward", "connections", Kind::Count(1, 65_536), "64", "the most connections of a worker to one host"),
    row("forward", "resolve", Kind::Duration(SECOND, HOUR), "30s", "how long the addresses of a name are used"),
    //
    row("log", "access", Kind::Section("path, off or mapping"), "off", "one line for every answered request"),
    row("log", "slow", Kind::Section("path, off or mapping"), "off", "one line for every request that took long, with the time of each phase"),
    row("log", "error", Kind::Text("syslog, stderr or path"), "auto", "the sink of ktrix's own messages; auto is stderr in the foreground and else syslog"),
    row("log", "level", Kind::Choice(&["off", "error", "warn", "info", "debug", "trace"]), "info", "the least severe level that is logged"),
    row("log.access", "file", Kind::Text("path"), "required", "the file that lines are appended to"),
    row("log.access", "format", Kind::Choice(&["common", "combined", "json"]), "combined", "the format of a line"),
    row("log.access", "when-full", Kind::Choice(&["spill", "wait", "drop"]), "spill", "the behaviour when the file takes no lines and the buffer is full"),
    row("log.access", "spill", Kind::Size(0, PIB), "256 MiB", "the largest file beside the cache for lines that the log does not take for now"),
    row("log.access", "buffer", Kind::Size(64 * KIB, 64 * MIB), "256 KiB", "memory for lines that are not yet written, for each worker, rounded up to a power of two"),
    row("log.slow", "file", Kind::Text("path"), "required", "the file that lines are appended to"),
    row("log.slow", "over", Kind::Duration(1, DAY), "1s", "requests that took less have no line"),
    row("log.slow", "format", Kind::Choice(&["text", "json"]), "text", "the format of a line"),
    //
    row("cache", "path", Kind::Text("path"), "required", "the directory of the cache files"),
    row("cache", "size", Kind::Size(MIB, PIB), "1 GiB", "all cache files together"),
    row("cache", "objects", Kind::Count(1_000, 1_000_000_000), "100000", "stored responses, which take some 110 bytes each in the index"),
    row("cache", "memory", Kind::Size(MIB, 1 << 40), "64 MiB", "the hottest objects, for each worker"),
    row("cache", "memory-object", Kind::Size(64 * KIB, GIB), MEMORY_OBJECT_DEFAULT, "the largest body that is kept there; larger ones are sent from their files"),
    row("cache", "free", Kind::Size(0, PIB), FREE_DEFAULT, "bytes that stay free on the disk"),
    row("cache", "admission", Kind::Choice(&["auto", "on", "off"]), "auto", "whether a full cache stores an object only at its second request; auto measures"),
    row("cache", "scrub", Kind::Size(0, 64 * GIB), "1 MiB", "bytes of files that are verified in the background each second; 0 B is none"),
    row("cache", "object", Kind::Size(KIB, PIB), "half of cache.size", "the largest response that is stored"),
    row("cache", "purge", Kind::List("networks or off"), "local", "the clients that may purge with the method PURGE"),
    row("cache", "rules", Kind::Section("mapping"), "the rules of RFC 9111", "the default of all sites and routes, by the keys of sites[].routes[].cache"),
    //
    row("upstreams.NAME", "balance", Kind::Choice(&["round-robin", "least-connections", "random", "rtt", "most-idle", "hash", "source", "first", "none"]), "round-robin", "how a server is chosen"),
    row("upstreams.NAME", "hash", Kind::Text("key, client, header NAME or cookie NAME"), "key", "what of a request balance: hash hashes"),
    row("upstreams.NAME", "sticky", Kind::Section("mapping or off"), "off", "whether a client stays with its server"),
    row("upstreams.NAME.sticky", "cookie", Kind::Text("name"), "required", "the cookie that names the server of a client"),
    row("upstreams.NAME", "servers", Kind::List("addresses or mappings"), "required", "the servers"),
    row("upstreams.NAME", "connections", Kind::Count(1, 65_536), "256", "open connections, for each worker and server"),
    row("upstreams.NAME", "keep-open", Kind::Count(0, 65_536), "0", "idle connections that are kept ready, for each worker and server"),
    row("upstreams.NAME", "requests", Kind::Count(0, 1_000_000_000), "0", "most requests on one connection; 0 is any number"),
    row("upstreams.NAME", "pending", Kind::Count(0, 1_000_000), "10000", "requests that wait for a connection, for each worker; more are answered with 503"),
    row("upstreams.NAME", "pending-timeout", Kind::Duration(1, HOUR), "10s", "how long a request waits for a connection before it is answered with 503"),
    row("upstreams.NAME", "skip", Kind::Duration(0, DAY), "10s", "how long a failed server is skipped at first; doubled up to 16 times"),
    row("upstreams.NAME", "slow-start", Kind::Duration(0, DAY), "0s", "how long the share of a server that comes back grows to its weight"),
    row("upstreams.NAME", "retries", Kind::Count(0, 10), "2", "further tries of a request that is safe to repeat"),
    row("upstreams.NAME", "retry-on", Kind::List("words or statuses"), "[connect, timeout, broken, 502, 503, 504]", "the failures after which another server is tried"),
    row("upstreams.NAME", "retry-budget", Kind::Percent(0, 1_000), "20%", "most retries in ten seconds, as a share of the requests, after the first 100"),
    row("upstreams.NAME", "proxy-protocol", Kind::Choice(&["off", "v1", "v2"]), "off", "the version of the PROXY header that each connection to a server begins with"),
    row("upstreams.NAME", "timeouts", Kind::Section("mapping"), "timeouts", "bounds on waiting for its servers, in the place of those at the top"),
    row("upstreams.NAME.timeouts", "connect", Kind::Duration(10, HOUR), "timeouts.connect", "for a connection to a server"),
    row("upstreams.NAME.timeouts", "first-byte", Kind::Duration(10, DAY), "timeouts.first-byte", "from the end of a request to the head of its response"),
    row("upstreams.NAME.timeouts", "idle", Kind::Duration(10, DAY), "timeouts.idle", "between two reads of a response, and of a connection that waits for its next request"),
    row("upstreams.NAME", "limits", Kind::Section("mapping"), "limits", "bounds on the responses of its servers, in the place of those at the top"),
    row("upstreams.NAME.limits", "head", Kind::Size(KIB, MIB), "limits.head", "the head of a response, its first line included"),
    row("upstreams.NAME.limits", "headers", Kind::Count(8, 1_000), "limits.headers", "the fields of a head"),
    row("upstreams.NAME", "resolve", Kind::Duration(SECOND, DAY), "30s", "how often the names of servers are resolved again, if no TTL is shorter"),
    row("upstreams.NAME", "check", Kind::Section("mapping or off"), "off", "how the servers are checked, once for all workers"),
    row("upstreams.NAME.check", "path", Kind::Text("path"), "none", "the path that is requested; without it a connection is enough"),
    row("upstreams.NAME.check", "method", Kind::Choice(&["GET", "HEAD"]), "GET", "the method of the request"),
    row("upstreams.NAME.check", "host", Kind::Text("host"), "the server's address", "the Host of the request"),
    row("upstreams.NAME.check", "status", Kind::List("statuses or classes"), "[2xx, 3xx]", "the statuses that pass"),
    row("upstreams.NAME.check", "expect", Kind::Text("text"), "none", "a text that the first 64 KiB of the body must contain"),
    row("upstreams.NAME.check", "expect-regex", Kind::Text("regular expression"), "none", "a regular expression that the first 64 KiB of the body must match"),
    row("upstreams.NAME.check", "interval", Kind::Duration(100, DAY), "5s", "the time between two checks of a server; up to a tenth is added"),
    row("upstreams.NAME.check", "timeout", Kind::Duration(10, HOUR), "2s", "how long a check may take"),
    row("upstreams.NAME.check", "fails", Kind::Count(1, 1_000), "3", "failed checks in a row that make a server down"),
    row("upstreams.NAME.check", "passes", Kind::Count(1, 1_000), "2", "passed checks in a row that make it up again"),
    row("upstreams.NAME", "tls", Kind::Section("on, off or mapping"), "off", "whether the servers are spoken to over TLS, and how"),
    row("upstreams.NAME.tls", "name", Kind::Text("name"), "the host of a server's address", "the name that is asked for (SNI) and verified"),
    row("upstreams.NAME.tls", "verify", Kind::Switch, "on", "whether the certificate of a server is verified"),
    row("upstreams.NAME.tls", "ca", Kind::Text("path"), "the authorities of the system", "a PEM file with the authorities that are trusted"),
    row("upstreams.NAME.tls", "certificate", Kind::Text("path"), "none", "a PEM file with the certificate that ktrix shows to a server that asks for one"),
    row("upstreams.NAME.tls", "key", Kind::Text("path"), "the file of the certificate", "a PEM file with its private key"),
    row("upstreams.NAME.servers[]", "address", Kind::Text("address"), "required", "a name or IP address with its port (else 80, or 443 over TLS), perhaps after https://, or unix: and a path"),
    row("upstreams.NAME.servers[]", "weight", Kind::Count(0, 1_000), "1", "the server's share of the requests; 0 takes no new clients"),
    row("upstreams.NAME.servers[]", "connections", Kind::Count(1, 65_536), "the upstream's", "open connections to this server, for each worker"),
    row("upstreams.NAME.servers[]", "backup", Kind::Switch, "off", "whether the server is used only while no other one is"),
    row("upstreams.NAME.servers[]", "drain", Kind::Switch, "off", "whether the server takes no new clients"),
    row("upstreams.NAME.servers[]", "disabled", Kind::Switch, "off", "whether the server takes no requests at all"),
    //
    row("sites[]", "hosts", Kind::List("host names"), "any host", "the hosts that the site claims"),
    row("sites[]", "tls", Kind::Section("mapping"), "none", "a certificate that every listener with tls has for the hosts of the site, and which clients it takes"),
    row("sites[].tls", "certificate", Kind::Text("path"), "none", "a PEM file with the certificate and those of its issuers behind it"),
    row("sites[].tls", "key", Kind::Text("path"), "the file of the certificate", "a PEM file with the private key"),
    row("sites[].tls", "client-auth", CLIENT_AUTH, "the listener's, or required with client-ca", "whether clients are asked for a certificate: not, or they may show one, or they must"),
    row("sites[].tls", "client-ca", Kind::List("paths"), "none", "PEM files with the authorities that issue the certificates of clients, or folders of such files"),
    row("sites[].tls", "client-depth", Kind::Count(0, 6), "1", "certificates between that of a client and an authority at most"),
    row("sites[].tls", "client-crl", Kind::List("paths"), "none", "files with lists of revoked certificates (CRLs), or folders of such files"),
    row("sites[]", "redirect", Kind::Section("mapping"), "none", "answers requests in the clear with the same URL of https"),
    row("sites[].redirect", "to", Kind::Choice(&["https"]), "https", "the scheme of the URL"),
    row("sites[].redirect", "port", Kind::Count(1, 65_535), "443", "its port"),
    row("sites[].redirect", "status", Kind::Text("status"), "301", "301, 302, 303, 307 or 308"),
    row("sites[]", "upstream", Kind::Text("name"), "the top's upstream", "the upstream for paths outside of the site's routes, and the default of these"),
    row("sites[]", "cache", Kind::Section("on, off or mapping"), "on", "the default of its routes"),
    row("sites[]", "client-cert", Kind::Switch, "off", "the default of its routes"),
    row("sites[]", "request-buffering", Kind::Switch, "on", "the default of its routes"),
    row("sites[]", "response-buffering", RESPONSE_BUFFERING, "file", "the default of its routes"),
    row("sites[]", "upgrade", Kind::Switch, "on", "the default of its routes"),
    row("sites[]", "limits", Kind::Section("mapping"), "limits", "the default of its routes"),
    row("sites[].limits", "head", Kind::Size(KIB, MIB), "limits.head", "the default of its routes"),
    row("sites[].limits", "body", Kind::Size(0, PIB), "limits.body", "the default of its routes"),
    row("sites[].limits", "response-memory", Kind::Size(0, GIB), "limits.response-memory", "the default of its routes"),
    row("sites[].limits", "response-file", Kind::Size(0, PIB), "limits.response-file", "the default of its routes"),
    row("sites[]", "timeouts", Kind::Section("mapping"), "timeouts", "the default of its routes"),
    row("sites[].timeouts", "client-body", Kind::Duration(10, DAY), "timeouts.client-body", "the default of its routes"),
    row("sites[].timeouts", "client-request", Kind::Duration(10, 7 * DAY), "timeouts.client-request", "the default of its routes"),
    row("sites[].timeouts", "client-send", Kind::Duration(10, DAY), "timeouts.client-send", "the default of its routes"),
    row("sites[].timeouts", "tunnel", Kind::Duration(10, 365 * DAY), "timeouts.tunnel", "the default of its routes"),
    row("sites[].timeouts", "first-byte", Kind::Duration(10, DAY), "the upstream's", "the default of its routes"),
    row("sites[].timeouts", "idle", Kind::Duration(10, DAY), "the upstream's", "the default of its routes"),
    row("sites[]", "routes", Kind::List("mappings"), "every path to the site's upstream", "requests with settings of their own"),
    row("sites[].routes[]", "path", Kind::Section("path prefix or mapping"), "required", "the paths; the most specific route is tried first"),
    row("sites[].routes[].path", "exact", Kind::Text("path"), "none", "one path"),
    row("sites[].routes[].path", "prefix", Kind::Text("path prefix"), "none", "all paths that begin with it"),
    row("sites[].routes[].path", "glob", Kind::Text("path pattern"), "none", "paths with wildcards"),
    row("sites[].routes[].path", "regex", Kind::Text("regular expression"), "none", "paths that a regular expression matches"),
    row("sites[].routes[]", "methods", Kind::List("methods"), "any", "the methods"),
    row("sites[].routes[]", "headers", Kind::Section("mapping of field names"), "none", "fields that a request must have, with their values"),
    row("sites[].routes[]", "query", Kind::Section("mapping of parameter names"), "none", "parameters that a query must have, with their values"),
    row("sites[].routes[]", "clients", Kind::List("networks"), "any", "the networks of the clients"),
    row("sites[].routes[]", "upstream", Kind::Text("name"), "the site's upstream", "the upstream"),
    row("sites[].routes[]", "redirect", Kind::Section("mapping"), "none", "answers with another URL, in the place of an upstream"),
    row("sites[].routes[].redirect", "to", Kind::Text("URL with variables"), "required", "the URL"),
    row("sites[].routes[].redirect", "status", Kind::Text("status"), "302", "301, 302, 303, 307 or 308"),
    row("sites[].routes[]", "answer", Kind::Section("mapping"), "none", "answers with a text, in the place of an upstream"),
    row("sites[].routes[].answer", "status", Kind::Text("status"), "200", "a final status"),
    row("sites[].routes[].answer", "body", Kind::Text("text with variables"), "empty", "the text"),
    row("sites[].routes[].answer", "type", Kind::Text("media type"), "text/plain; charset=utf-8", "its media type"),
    row("sites[].routes[]", "deny", Kind::Text("status"), "none", "refuses requests with a status from 400 to 599, in the place of an upstream"),
    row("sites[].routes[]", "rewrite", Kind::Section("mapping"), "none", "the target for the origin, and in the cache key"),
    row("sites[].routes[].rewrite", "strip", Kind::Text("path prefix"), "empty", "the beginning of the path that is left out"),
    row("sites[].routes[].rewrite", "add", Kind::Text("path prefix"), "empty", "the beginning of the path in its place"),
    row("sites[].routes[].rewrite", "regex", Kind::Text("regular expression"), "none", "an expression that is matched with the path"),
    row("sites[].routes[].rewrite", "to", Kind::Text("target with variables"), "none", "the target where it matches"),
    row("sites[].routes[]", "host", Kind::Text("client, upstream or host"), "client", "the Host that the origin gets"),
    row("sites[].routes[]", "request-fields", Kind::Section("mapping"), "none", "changes of the fields that the origin gets"),
    row("sites[].routes[].request-fields", "set", Kind::Section("mapping of field names"), "none", "fields that replace all of their name"),
    row("sites[].routes[].request-fields", "add", Kind::Section("mapping of field names"), "none", "fields beside others of their name"),
    row("sites[].routes[].request-fields", "remove", Kind::List("field names"), "none", "fields that are removed"),
    row("sites[].routes[]", "client-cert", Kind::Switch, "the site's own", "whether the origin gets the certificate of the client in Client-Cert and Client-Cert-Chain (RFC 9440)"),
    row("sites[].routes[]", "response-fields", Kind::Section("mapping"), "none", "changes of the fields that clients get"),
    row("sites[].routes[].response-fields", "set", Kind::Section("mapping of field names"), "none", "fields that replace all of their name"),
    row("sites[].routes[].response-fields", "add", Kind::Section("mapping of field names"), "none", "fields beside others of their name"),
    row("sites[].routes[].response-fields", "remove", Kind::List("field names"), "none", "fields that are removed"),
    row("sites[].routes[]", "error-pages", Kind::Section("mapping of statuses"), "none", "files with the bodies of answers that ktrix makes itself"),
    row("sites[].routes[]", "internal", Kind::Switch, "off", "whether only an internal redirect leads to the route"),
    row("sites[].routes[]", "cache", Kind::Section("on, off or mapping"), "the site's own", "whether responses are stored and answered from the cache, and how"),
    row("sites[].routes[]", "limits", Kind::Section("mapping"), "the site's own", "bounds on the messages of the route, in the place of those at the top"),
    row("sites[].routes[].limits", "head", Kind::Size(KIB, MIB), "the site's own", "the head of a request, its first line included"),
    row("sites[].routes[].limits", "body", Kind::Size(0, PIB), "the site's own", "the body of a request that is received completely first"),
    row("sites[].routes[].limits", "response-memory", Kind::Size(0, GIB), "the site's own", "the part of a response that waits in memory for its client"),
    row("sites[].routes[].limits", "response-file", Kind::Size(0, PIB), "the site's own", "the part of it behind that, which waits in a file"),
    row("sites[].routes[]", "timeouts", Kind::Section("mapping"), "the site's own", "bounds on waiting in the exchanges of the route, in the place of those of the upstream and at the top"),
    row("sites[].routes[].timeouts", "client-body", Kind::Duration(10, DAY), "the site's own", "between two reads of a request's body"),
    row("sites[].routes[].timeouts", "client-request", Kind::Duration(10, 7 * DAY), "the site's own", "from a request's first byte to the end of its body"),
    row("sites[].routes[].timeouts", "client-send", Kind::Duration(10, DAY), "the site's own", "between two writes to a client"),
    row("sites[].routes[].timeouts", "tunnel", Kind::Duration(10, 365 * DAY), "the site's own", "without a byte in either direction of a tunnel"),
    row("sites[].routes[].timeouts", "first-byte", Kind::Duration(10, DAY), "the site's own", "from the end of a request to the head of its response"),
    row("sites[].routes[].timeouts", "idle", Kind::Duration(10, DAY), "the site's own", "between two reads of a response"),
    row("sites[].routes[]", "request-buffering", Kind::Switch, "the site's own", "whether a request is received completely before a server sees it"),
    row("sites[].routes[]", "response-buffering", RESPONSE_BUFFERING, "the site's own", "whether a response that is not stored is taken from a server faster than the client takes it"),
    row("sites[].routes[]", "upgrade", Kind::Switch, "the site's own", "whether a request may switch to another protocol, as WebSocket"),
    //
    row("sites[].routes[].cache", "ttl-status", Kind::Section("mapping of statuses or off"), "none", "the lifetime of answers without a stated one, by status"),
    row("sites[].routes[].cache", "ttl-min", Kind::Duration(0, TTL_MS_MAX), "0s", "lifetimes below this are raised to it"),
    row("sites[].routes[].cache", "ttl-max", Kind::Duration(0, TTL_MS_MAX), "24855d", "lifetimes above this are cut to it"),
    row("sites[].routes[].cache", "heuristic-percent", Kind::Count(0, 100), "10", "the part of the time since Last-Modified that is the lifetime where none is stated"),
    row("sites[].routes[].cache", "heuristic-max", Kind::Duration(0, TTL_MS_MAX), "1d", "the longest lifetime of this kind"),
    row("sites[].routes[].cache", "stale-while-revalidate", Kind::Duration(0, TTL_MS_MAX), "0s", "how long a stale answer is served while it is revalidated, where the origin does not say"),
    row("sites[].routes[].cache", "stale-if-error", Kind::Duration(0, TTL_MS_MAX), "0s", "how long a stale answer is served when the origin fails, where it does not say"),
    row("sites[].routes[].cache", "outage-hold", Kind::Duration(0, TTL_MS_MAX), "0s", "how long beyond its lifetime an answer is served while no server of the upstream can be reached"),
    row("sites[].routes[].cache", "object", Kind::Size(KIB, PIB), "cache.object", "the largest response that is stored"),
    row("sites[].routes[].cache", "parts", Kind::Switch, "on", "whether a request for a part fetches and stores only that part"),
    row("sites[].routes[].cache", "fetch-whole", Kind::Size(0, PIB), "4 MiB", "the largest response that is fetched whole for a request for a part"),
    row("sites[].routes[].cache", "min-uses", Kind::Count(1, 16), "1", "the request at which an object is stored"),
    row("sites[].routes[].cache", "set-cookie", Kind::Choice(&["pass", "strip", "store"]), "pass", "the handling of an answer that sets a cookie"),
    row("sites[].routes[].cache", "ignore", Kind::List("field names or off"), "none", "response fields that the cache ignores"),
    row("sites[].routes[].cache", "targeted", Kind::List("field names or off"), "ktrix-cache-control, cdn-cache-control", "fields that replace Cache-Control and Expires, the strongest first"),
    row("sites[].routes[].cache", "strip", Kind::List("field names or off"), "ktrix-cache-control", "response fields that no client gets"),
    row("sites[].routes[].cache", "cache-status", Kind::List("words or off"), "fwd-status, stored, collapsed, ttl, detail", "the parameters of Cache-Status that clients get"),
    row("sites[].routes[].cache", "pass-if", Kind::List("conditions or off"), "none", "requests that pass the cache"),
    row("sites[].routes[].cache", "refresh-if", Kind::List("conditions or off"), "none", "requests that validate the stored answer first"),
    row("sites[].routes[].cache", "vary-ignore", Kind::List("field names or off"), "none", "field names that are ignored in Vary"),
    row("sites[].routes[].cache", "vary-language", Kind::Choice(&["exact", "best"]), "exact", "which stored answers a request may get where Vary names Accept-Language"),
    row("sites[].routes[].cache", "key", Kind::Section("mapping"), "scheme, host, path and query", "the parts of the cache key; the host is always one"),
    row("sites[].routes[].cache.key", "scheme", Kind::Switch, "on", "whether http and https have separate keys"),
    row("sites[].routes[].cache.key", "path", Kind::Switch, "on", "whether the paths of the route have separate keys"),
    row("sites[].routes[].cache.key", "query", Kind::Switch, "on", "whether queries have separate keys"),
    row("sites[].routes[].cache.key", "query-sort", Kind::Switch, "off", "whether the order of the query's parameters is ignored"),
    row("sites[].routes[].cache.key", "query-keep", Kind::List("parameter names"), "all", "the parameters in the key"),
    row("sites[].routes[].cache.key", "query-drop", Kind::List("parameter names"), "none", "the parameters left out of the key"),
    row("sites[].routes[].cache.key", "headers", Kind::List("field names"), "none", "request fields in the key, beside those that Vary names"),
    row("sites[].routes[].cache.key", "cookies", Kind::List("cookie names"), "none", "cookies in the key"),
    //
    row("timeouts", "client-head", Kind::Duration(10, DAY), "10s", "from a request's first byte to the end of its head"),
    row("timeouts", "client-body", Kind::Duration(10, DAY), "30s", "between two reads of a request's body"),
    row("timeouts", "client-request", Kind::Duration(10, 7 * DAY), "12h", "from a request's first byte to the end of its body"),
    row("timeouts", "client-send", Kind::Duration(10, DAY), "30s", "between two writes to a client"),
    row("timeouts", "client-idle", Kind::Duration(10, DAY), "60s", "between two requests of a client"),
    row("timeouts", "tls-handshake", Kind::Duration(10, HOUR), "10s", "from a client's connection to the end of its TLS handshake"),
    row("timeouts", "connect", Kind::Duration(10, HOUR), "3s", "for a connection to a server"),
    row("timeouts", "first-byte", Kind::Duration(10, DAY), "60s", "from the end of a request to the head of its response"),
    row("timeouts", "idle", Kind::Duration(10, DAY), "60s", "between two reads of a response, and of a connection that waits for its next request"),
    row("timeouts", "tunnel", Kind::Duration(10, 365 * DAY), "1h", "without a byte in either direction of a tunnel"),
    row("timeouts", "fill-alone", Kind::Duration(0, HOUR), "5s", "for a response that is being stored to end, after its last client has left"),
    row("timeouts", "disk", Kind::Duration(10, HOUR), "5s", "for an operation on the cache's disk; a read that takes longer is a miss"),
    row("timeouts", "worker-stuck", Kind::Duration(0, DAY), "10s", "for a worker that hangs or is stopped, until it is killed and replaced; 0s is never"),
    row("timeouts", "stop", Kind::Duration(0, DAY), "30s", "for requests to finish when ktrix stops or reloads"),
    row("timeouts", "upgrade", Kind::Duration(1_000, HOUR), "30s", "for the new program of an upgrade to serve; after that the old one goes on"),
    row("timeouts", "tunnel-drain", Kind::Duration(0, 365 * DAY), "1h", "for tunnels to end after an upgrade, or a reload that changed their routes"),
    //
    row("limits", "connections", Kind::Count(1, 1_000_000), "16384", "open client connections, for each worker"),
    row("limits", "handshakes", Kind::Count(1, 1_000_000), "1024", "TLS handshakes and PROXY headers under way, for each worker; one more ends the oldest"),
    row("limits", "head", Kind::Size(KIB, MIB), "32 KiB", "the head of a message, its first line included"),
    row("limits", "target", Kind::Size(64, MIB), "8 KiB", "the target of a request"),
    row("limits", "body", Kind::Size(0, PIB), "1 GiB", "the body of a request that is received completely first"),
    row("limits", "body-memory", Kind::Size(0, GIB), "64 KiB", "the part of it that stays in memory; the rest goes to a file"),
    row("limits", "response-memory", Kind::Size(0, GIB), "256 KiB", "the part of a response that waits in memory for its client"),
    row("limits", "response-file", Kind::Size(0, PIB), "1 GiB", "the part of it behind that, which waits in a file"),
    row("limits", "responses", Kind::Size(0, GIB), "64 MiB", "all parts in memory of one worker together; past it a response goes to its file at once, or its server waits"),
    row("limits", "bodies", Kind::Size(0, PIB), BODIES_DEFAULT, "all parts in files of all workers together; a request past it is answered with 503, and a response past it waits in memory alone"),
    row("limits", "body-rate", Kind::Size(0, GIB), "1 KiB", "the least bytes of a body that must come each second, after timeouts.client-body; 0 B is any"),
    row("limits", "headers", Kind::Count(8, 1_000), "100", "the fields of a head"),
    row("limits", "streams", Kind::Count(1, 65_536), "128", "requests of one HTTP/2 connection at a time"),
    row("limits", "crash-guard", Kind::Duration(0, DAY), "1m", "how long a request is answered with 503 that was in flight in two crashes of workers within a minute; 0s is never"),
    row("limits", "generations", Kind::Count(1, 40), "8", "earlier configurations of which workers may still have tunnels; past it, those of the oldest are closed"),
];

const fn row(
    section: &'static str,
    key: &'static str,
    kind: Kind,
    default: &'static str,
    description: &'static str,
) -> Directive {
    Directive { section, key, kind, default, description }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_key_has_one_row_and_every_row_is_whole() {
        let mut seen = HashSet::new();
        for row in DIRECTIVES {
            assert!(seen.insert(row.path()), "{} is listed twice", row.path());
            assert!(!row.default.is_empty() && !row.kind.unit().is_empty(), "{}", row.path());
            assert!(
                !row.description.is_empty() && !row.description.ends_with('.'),
                "{}",
                row.path()
            );
        }
    }

    #[test]
    fn a_chosen_default_is_one_of_the_words() {
        for row in DIRECTIVES {
            if let Kind::Choice(words) = row.kind {
                let is_inherited = row.default == "the site's own"
                    || row.default.ends_with(", or required with client-ca");
                assert!(is_inherited || words.contains(&row.default), "{}", row.path());
            }
        }
    }
}
