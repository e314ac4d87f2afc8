//! A load test against a cluster in which something happens: clients that must see nothing
//! lost, doubled, out of order or wrong, whatever it is.

use std::io::Read as _;
use std::process::{Child, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::cluster::{AUDIENCE, Cluster, PATIENCE, wait_until};
use crate::sallyport;

/// One that runs; killed with its test.
pub struct Load(Child);

impl Load {
    /// Starts one with these arguments, besides where the cluster is.
    pub fn start(cluster: &Cluster, more: &[&str]) -> Self {
        let secret = std::fs::read_to_string(cluster.path().join("token.secret")).expect("a key");
        let key = URL_SAFE_NO_PAD.encode(cluster.gateway_key);
        let address = cluster.address().to_string();
        let target = ["loadtest", &address, "--key", &key];
        let token = ["--token-key", secret.trim(), "--audience", AUDIENCE];
        let arguments = [&target[..], &token, more].concat();
        let mut command = sallyport(cluster.path(), &arguments);
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the binary starts"))
    }

    /// Waits for its end, and finds that it has nothing to report.
    pub fn finish(mut self) {
        let patience = 2 * PATIENCE;
        wait_until("the load test is done", patience, || {
            self.0.try_wait().expect("our own child").is_some()
        });
        let (mut out, mut err) = (String::new(), String::new());
        let mut pipe = self.0.stdout.take().expect("piped");
        pipe.read_to_string(&mut out).expect("text");
        let mut pipe = self.0.stderr.take().expect("piped");
        pipe.read_to_string(&mut err).expect("text");
        let status = self.0.wait().expect("our own child");
        assert_eq!(status.code(), Some(0), "{out}\n{err}");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
