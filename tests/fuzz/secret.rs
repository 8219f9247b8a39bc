//! Secrets as an operator or a link has them.

use mtproxy_core::secret::{Secret, SecretKind};

use crate::script::{Script, verbatim};

const KEY_HEX: &str = "00112233445566778899aabbccddeeff";

fn good() -> Vec<Vec<u8>> {
    let secrets = [
        KEY_HEX.to_owned(),
        format!("dd{KEY_HEX}"),
        format!("ee{KEY_HEX}6578616d706c652e636f6d"),
        "3fv7-_v7-_v7-_v7-_v7-_s".to_owned(),
        "3fv7+/v7+/v7+/v7+/v7+/s=".to_owned(),
    ];
    secrets.map(String::into_bytes).to_vec()
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    verbatim(&good())
}

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(&Script::new(input).text(&good())).into_owned();
    match text.parse::<Secret>() {
        Ok(secret) => {
            let revealed = secret.reveal();
            let prefix = match secret.kind() {
                SecretKind::Plain => "",
                SecretKind::Padded => "dd",
                SecretKind::FakeTls(_) => "ee",
            };
            assert!(revealed.starts_with(prefix));
            assert!(revealed.parse::<Secret>().is_ok_and(|again| again == secret), "what is read is written");
            let redacted = format!("Secret {{ kind: {:?}, .. }}", secret.kind());
            assert_eq!(format!("{secret:?}"), redacted);
        }
        Err(error) => {
            // Words of the message itself are shorter than that.
            let private = text.trim();
            assert!(private.len() < 20 || !error.to_string().contains(private), "an error quotes a secret");
        }
    }
}
