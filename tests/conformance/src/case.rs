//! A recorded case: `case.json`, what was done, and `expected.json`, what the
//! kernel did.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

/// A case with its recording.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// What is done.
    pub case: Case,
    /// What the kernel did.
    pub expected: Expected,
}

/// What is done to the director.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Case {
    /// Name, that of its folder.
    pub name: String,
    /// What it is about.
    pub title: String,
    /// What it touches.
    pub tags: Vec<String>,
    /// The network that it happens in.
    pub topology: String,
    /// Commands before time 0.
    pub setup: Vec<String>,
    /// What happens then, in order.
    pub steps: Vec<Step>,
    /// When the tables are looked at.
    #[serde(deserialize_with = "seconds", serialize_with = "as_seconds")]
    pub end: Duration,
}

/// One thing that happens.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Step {
    /// When, from the start.
    #[serde(rename = "t", deserialize_with = "seconds", serialize_with = "as_seconds")]
    pub at: Duration,
    /// What.
    #[serde(flatten)]
    pub action: Action,
}

/// What happens in a [`Step`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Action {
    /// A frame comes in.
    #[serde(rename = "pkt")]
    Frame(Frame),
    /// A command is run on the director.
    #[serde(rename = "cmd")]
    Command {
        /// The line, as typed into a shell.
        #[serde(rename = "cmd")]
        line: String,
    },
    /// Nothing; keeps the numbers of the steps.
    Skip,
}

/// A frame, and the director's interface that it enters or leaves through.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Frame {
    /// Interface: `c0` towards the clients, `s0` towards the servers.
    pub dev: String,
    /// The octets from the Ethernet header on, without frame check sequence.
    #[serde(rename = "hex", with = "hex")]
    pub octets: Vec<u8>,
}

/// What the kernel did.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Expected {
    /// Results of the setup commands.
    pub setup: Vec<Output>,
    /// What followed each step until the next.
    pub steps: Vec<StepResult>,
    /// The tables at the end, by name.
    pub dumps: BTreeMap<String, String>,
    /// What differed between recordings of the tables.
    pub volatile_dump_lines: BTreeMap<String, Volatile>,
    /// Reasons why the case cannot be compared exactly.
    pub unstable: Vec<serde_json::Value>,
}

/// What a command gave.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Output {
    /// Exit status.
    pub rc: i32,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// What followed a step.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct StepResult {
    /// The frames that left the director.
    #[serde(rename = "out")]
    pub frames: Vec<ExpectedFrame>,
    /// What the command gave, if the step was one.
    #[serde(flatten)]
    pub output: Option<Output>,
    /// Lines of its output that differed between recordings.
    #[serde(default)]
    pub volatile_lines: Volatile,
}

/// A frame that left the kernel.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct ExpectedFrame {
    /// The frame.
    #[serde(flatten)]
    pub frame: Frame,
    /// Places of octets that differed between recordings.
    #[serde(default)]
    pub volatile_bytes: Vec<usize>,
}

/// Lines of a text that differed between recordings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged)]
pub enum Volatile {
    /// These, counted from 0.
    Lines(Vec<usize>),
    /// `"all"`: even their number.
    All(String),
}

impl Default for Volatile {
    fn default() -> Self {
        Self::Lines(Vec::new())
    }
}

impl Recorded {
    /// Reads the case in the folder `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let recorded = Self {
            case: read(&dir.join("case.json"))?,
            expected: read(&dir.join("expected.json"))?,
        };
        let (case, expected) = (&recorded.case, &recorded.expected);
        ensure!(
            case.steps.len() == expected.steps.len() && case.setup.len() == expected.setup.len(),
            "{}: case.json and expected.json have different numbers of steps",
            dir.display()
        );
        Ok(recorded)
    }
}

/// The folders under `dir` that hold a case, or `dir` itself if it is one.
pub fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    if dir.join("case.json").exists() {
        return Ok(vec![dir.to_owned()]);
    }
    let mut found = Vec::new();
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.join("case.json").exists() {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "no recorded case in {}", dir.display());
    found.sort();
    Ok(found)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("cannot understand {}", path.display()))
}

fn seconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    Duration::try_from_secs_f64(f64::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn as_seconds<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_f64(time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_step_is_read() {
        let step = |text: &str| serde_json::from_str::<Step>(text).unwrap();
        let frame = step(r#"{"t": 1.5, "op": "pkt", "dev": "c0", "hex": "00ff", "label": "syn"}"#);
        assert_eq!(frame.at, Duration::from_millis(1500));
        let Action::Frame(frame) = frame.action else { panic!("not a frame") };
        assert_eq!(frame, Frame { dev: "c0".into(), octets: vec![0, 255] });
        let command = step(r#"{"t": 0, "op": "cmd", "cmd": "ipvsadm -Ln"}"#).action;
        assert!(matches!(command, Action::Command { line } if line == "ipvsadm -Ln"));
        let skipped = step(r#"{"t": 0, "op": "skip", "note": "nothing to answer"}"#).action;
        assert!(matches!(skipped, Action::Skip));
    }

    #[test]
    fn a_result_of_a_frame_has_no_output_and_one_of_a_command_has() {
        let result = |text: &str| serde_json::from_str::<StepResult>(text).unwrap();
        assert_eq!(result(r#"{"out": []}"#).output, None);
        let command = result(
            r#"{"out": [], "rc": 2, "stdout": "", "stderr": "no", "volatile_lines": "all"}"#,
        );
        assert_eq!(command.output.unwrap().rc, 2);
        assert_eq!(command.volatile_lines, Volatile::All("all".into()));
    }

    #[test]
    fn every_public_case_can_be_read() {
        let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        for folder in folders(&cases).unwrap() {
            let recorded = Recorded::load(&folder).unwrap();
            assert_eq!(recorded.case.name, folder.file_name().unwrap().to_str().unwrap());
        }
    }
}
