//! No text panics, and each refusal has its place and reason, on one line.
#![no_main]

use std::path::Path;

use ktrix::route::asked::Asked;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match ktrix::config::Config::load_for(Path::new("k.yaml"), text, 2) {
        Ok(config) => {
            assert!(!config.listen.is_empty() && !config.upstreams.is_empty());
            let router = ktrix::route::Router::new(&config);
            for site in &config.sites {
                for route in &site.routes {
                    let path = route.matching.path.text().as_bytes();
                    let _ = router.find(&Asked::of_url(b"www.example.com", path));
                }
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(error.line > 0 && error.column > 0);
                assert!(!error.to_string().contains('\n'));
            }
        }
    }
});
