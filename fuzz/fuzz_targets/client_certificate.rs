//! Certificates of clients, and lists of revoked ones. No text of them ends a line.
#![no_main]

use ktrix::http::client_certificate::{ClientCertificate, Oid};
use ktrix::tls::crl;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Some(client) = ClientCertificate::new([bytes]) {
        let extension = client.extension(Oid::new_unwrap("2.5.29.17"));
        let texts = [client.subject(), client.issuer(), client.serial(), client.not_before()];
        for text in texts.into_iter().chain([&*extension]) {
            assert!(!text.contains(char::is_control), "{text:?}");
        }
    }
    for list in crl::lists(bytes).unwrap_or_default() {
        let _ = crl::Facts::of(&list);
    }
});
