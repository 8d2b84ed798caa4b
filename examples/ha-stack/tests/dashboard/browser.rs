//! A Chromium without a window, driven through chromedriver; it asks nobody but this machine.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use thirtyfour::prelude::*;

/// A browser with one tab.
pub(crate) struct Browser {
    pub(crate) tab: WebDriver,
    _driver: Driver,
    profile: tempfile::TempDir,
}

impl Browser {
    /// Starts chromedriver and a browser.
    pub(crate) async fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        let driver = Driver::start();
        let mut wanted = DesiredCapabilities::chrome();
        wanted.set_binary(program("chromium", "chromium").to_str().unwrap()).unwrap();
        // The sandbox can't be had as root, which CI often is; the page is our own.
        for flag in [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--hide-scrollbars",
        ] {
            wanted.add_arg(flag).unwrap();
        }
        wanted.add_arg(&format!("--user-data-dir={}", profile.path().display())).unwrap();
        let tab = WebDriver::new(format!("http://127.0.0.1:{}", driver.port), wanted).await.unwrap();
        Self { tab, _driver: driver, profile }
    }

    /// Opens a page as on a screen of this width, in this colour scheme.
    pub(crate) async fn open(&self, url: &str, width: u32, scheme: &str) {
        let phone = width < 500;
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": phone}),
        )
        .await;
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", json!({"features": features})).await;
        self.tab.goto(url).await.unwrap();
    }

    /// The text of the first element that matches.
    pub(crate) async fn text(&self, css: &str) -> String {
        let read = "return document.querySelector(arguments[0])?.innerText ?? ''";
        self.run(read, vec![json!(css)]).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the text of an element says so.
    pub(crate) async fn wait_for(&self, css: &str, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = self.text(css).await;
            if text.contains(words) {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?} is not in {css}: {text:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Clicks as a person would: on what is visible there.
    pub(crate) async fn click(&self, css: &str) {
        let element = self.tab.find(By::Css(css)).await.unwrap_or_else(|_| panic!("there is no {css}"));
        element.scroll_into_view().await.unwrap();
        element.click().await.unwrap();
    }

    /// Types into an element.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        let element = self.tab.find(By::Css(css)).await.unwrap();
        element.clear().await.unwrap();
        element.send_keys(text).await.unwrap();
    }

    /// How many elements match.
    pub(crate) async fn count(&self, css: &str) -> u64 {
        let count = "return document.querySelectorAll(arguments[0]).length";
        self.run(count, vec![json!(css)]).await.as_u64().unwrap()
    }

    /// Runs a script in the page.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.tab.execute(script, arguments).await.unwrap().json().clone()
    }

    /// What the page complained about: errors, and what its own policy forbade.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let script = "return window.complaints ?? []";
        let seen = self.run(script, Vec::new()).await;
        seen.as_array().unwrap().iter().map(ToString::to_string).collect()
    }

    /// From the next page on, errors and what a page's policy forbids are kept for [`Browser::complaints`].
    pub(crate) async fn listen(&self) {
        let source = "window.complaints = [];\
            addEventListener('error', (e) => complaints.push(String(e.message)));\
            addEventListener('unhandledrejection', (e) => complaints.push(String(e.reason)));\
            addEventListener('securitypolicyviolation', (e) => complaints.push(`${e.violatedDirective} ${e.blockedURI}`));";
        self.devtools("Page.addScriptToEvaluateOnNewDocument", json!({"source": source})).await;
    }

    /// Keeps a picture of the whole page in the build folder, for people.
    pub(crate) async fn picture(&self, name: &str) {
        let size = self.run("return [innerWidth, document.documentElement.scrollHeight]", Vec::new()).await;
        let whole = json!({"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": false});
        self.devtools("Emulation.setDeviceMetricsOverride", whole).await;
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
        std::fs::create_dir_all(&folder).unwrap();
        let picture = self.tab.screenshot_as_png().await.unwrap();
        std::fs::write(folder.join(format!("{name}.png")), picture).unwrap();
    }

    async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.tab.cdp().send_raw(command, parameters).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.tab.clone().quit().await.unwrap();
    }
}

impl Drop for Browser {
    /// A test that fails leaves no browser behind: the driver alone does not see to that.
    fn drop(&mut self) {
        let ours = format!("--user-data-dir={}", self.profile.path().display());
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let pid =
                process.file_name().to_string_lossy().parse().ok().and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid
                && String::from_utf8_lossy(&line).contains(&ours)
            {
                // It may have ended by itself meanwhile.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// chromedriver, which takes its browsers with it when it is told to end.
struct Driver {
    child: Child,
    port: u16,
}

impl Driver {
    fn start() -> Self {
        let mut command = Command::new(program("chromedriver", "chromium-driver"));
        let child = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut driver = Self { child, port: 0 };
        let mut lines = BufReader::new(driver.child.stdout.take().unwrap()).lines();
        let line = lines.by_ref().map(Result::unwrap).find(|line| line.contains("successfully on port "));
        let line = line.expect("chromedriver ended early");
        driver.port = line.rsplit("on port ").next().unwrap().trim_end_matches('.').trim().parse().unwrap();
        // Read on, or the driver waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

/// A program on the path, or an error that names its package.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing: install the package {package}"))
}

const PATIENCE: Duration = Duration::from_secs(20);
