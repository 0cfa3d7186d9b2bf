//! The admin's kubeconfig, with everything in it.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::{ADMIN, Pair, certificates, files};
use crate::config::Config;
use crate::error::Error;

/// Writes `admin.kubeconfig`; the certificate in it, which is returned, is kept while it is good.
pub(super) fn write_admin(
    config: &Config,
    ca: &CertificateDer<'_>,
    ca_pem: &str,
    make: impl FnOnce() -> Result<Pair, Error>,
) -> Result<Pair, Error> {
    let path = config.data_dir.join("admin.kubeconfig");
    let known = files::read(&path)?;
    let identity = match known.as_deref().and_then(identity) {
        Some((certificate, key))
            if certificates::still_fits(&certificate, &key, ca, &certificates::client(ADMIN.0, ADMIN.1)?) =>
        {
            (certificate, key)
        }
        _ => make()?,
    };
    let text = api::yaml::to_string(&kubeconfig(config, ca_pem, &identity));
    if known.as_deref() != Some(&text) {
        files::write_private(&path, &text)?;
    }
    Ok(identity)
}

/// The certificate and key in a kubeconfig written here.
fn identity(text: &str) -> Option<Pair> {
    let documents = api::yaml::parse_all(text).ok()?;
    let user = documents.first()?["users"][0]["user"].clone();
    let decode = |field: &str| String::from_utf8(BASE64_STANDARD.decode(user[field].as_str()?).ok()?).ok();
    Some((decode("client-certificate-data")?, decode("client-key-data")?))
}

fn kubeconfig(config: &Config, ca_pem: &str, (certificate, key): &Pair) -> Value {
    let address = config.advertise_address;
    let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
    json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {},
        "clusters": [{"name": "coracle", "cluster": {
            "certificate-authority-data": BASE64_STANDARD.encode(ca_pem),
            "server": format!("https://{host}:{}", config.secure_port),
        }}],
        "users": [{"name": ADMIN.0, "user": {
            "client-certificate-data": BASE64_STANDARD.encode(certificate),
            "client-key-data": BASE64_STANDARD.encode(key),
        }}],
        "contexts": [{"name": format!("{}@coracle", ADMIN.0), "context": {"cluster": "coracle", "user": ADMIN.0}}],
        "current-context": format!("{}@coracle", ADMIN.0),
    })
}
