//! Small components for tests: written in WAT, given the world's types by `wit-component`, and
//! compiled by the program `ocelli-compile`, since the worker has no compiler inside.

use std::path::Path;
use std::process::{Command, Stdio};

use command_fds::{CommandFdExt, FdMapping};
use ocelli_protocol::process::compile as descriptor;
use ocelli_testkit::program;
use wasmtime::component::Component;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::{Resolve, WorldId};

use crate::engine;

/// The folder of the contract's versions.
pub(crate) const WIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit");

/// What of WASI the tests import beside a pipeline's world.
const WASI: &str = "

package wasi:io@0.2.0 {
    interface poll {
        resource pollable {
            block: func();
        }
    }
}

package wasi:clocks@0.2.0 {
    interface monotonic-clock {
        use wasi:io/poll@0.2.0.{pollable};
        subscribe-duration: func(when: u64) -> pollable;
    }
}
";

/// A pipeline whose functions do nothing and return what is empty, where they are not given a body.
/// Addresses below 4096 are its own, results lie at [`RESULT`], and what the host writes into its
/// memory lies from 8192 on.
pub(crate) struct Guest<'a> {
    /// The versions of the contract for which it exports a pipeline: "0.1.0".
    pub(crate) contracts: &'a [&'a str],
    /// Imports of the core module.
    pub(crate) imports: &'a str,
    /// Its memory's first size, in pages of 64 KiB.
    pub(crate) pages: u32,
    /// Further items: functions, tables, globals.
    pub(crate) items: &'a str,
    /// What `describe` does before it gives what lies at [`RESULT`].
    pub(crate) describe: &'a str,
    /// What `init` does before it succeeds.
    pub(crate) init: &'a str,
    /// What `process` does before it drops the frame and succeeds.
    pub(crate) process: &'a str,
    /// What `query` does before it gives what lies at [`RESULT`]. For the versions that have it.
    pub(crate) query: &'a str,
    /// What `command` does before it gives what lies at [`RESULT`].
    pub(crate) command: &'a str,
    /// What `snapshot` does before it gives what lies at [`RESULT`].
    pub(crate) snapshot: &'a str,
    /// What `restore` does before it succeeds.
    pub(crate) restore: &'a str,
}

/// Where a [`Guest`]'s results lie in its memory. Zeros there are an empty success.
pub(crate) const RESULT: u32 = 1024;

/// A guest that does nothing.
pub(crate) const IDLE: Guest<'static> = Guest {
    contracts: &["0.1.0"],
    imports: "",
    pages: 1,
    items: "",
    describe: "",
    init: "",
    process: "",
    query: "",
    command: "",
    snapshot: "",
    restore: "",
};

/// Sleeping: `$sleep` waits for so many nanoseconds and keeps its handle, `$timer` makes a handle
/// and does not wait.
pub(crate) const SLEEP: &str = r#"
    (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration" (func $timer (param i64) (result i32)))
    (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
    (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop_timer (param i32)))
"#;

impl Guest<'_> {
    fn wat(&self) -> String {
        let Self { contracts, imports, pages, items, .. } = self;
        let drops = contracts.iter().map(|version| {
            format!(
                r#"(import "ocelli:pipeline/frames@{version}" "[resource-drop]frame"
                    (func $drop_frame_{version} (param i32)))"#
            )
        });
        let drops: String = drops.collect();
        let exports: String = contracts.iter().map(|version| self.exports(version)).collect();
        format!(
            r#"(module
                {drops}
                {imports}
                (memory (export "memory") {pages})
                {items}
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 8192))
                {exports}
            )"#
        )
    }

    fn exports(&self, version: &str) -> String {
        let Self { describe, init, process, query, command, snapshot, restore, .. } = self;
        let pipeline = format!("ocelli:pipeline/pipeline@{version}");
        let query = if ["0.1.0", "0.2.0"].contains(&version) {
            String::new()
        } else {
            format!(
                r#"(func (export "{pipeline}#query") (param i32 i32) (result i32)
                    {query}
                    (i32.const {RESULT}))"#
            )
        };
        format!(
            r#"
                {query}
                (func (export "{pipeline}#describe") (result i32)
                    {describe}
                    (i32.const {RESULT}))
                (func (export "{pipeline}#init") (param i32 i32) (result i32)
                    {init}
                    (i32.const {RESULT}))
                (func (export "{pipeline}#process") (param i32) (result i32)
                    {process}
                    (call $drop_frame_{version} (local.get 0))
                    (i32.const {RESULT}))
                (func (export "{pipeline}#command") (param i32 i32) (result i32)
                    {command}
                    (i32.const {RESULT}))
                (func (export "{pipeline}#snapshot") (result i32)
                    {snapshot}
                    (i32.const {RESULT}))
                (func (export "{pipeline}#restore") (param i32 i32 i32 i32) (result i32)
                    {restore}
                    (i32.const {RESULT}))
            "#
        )
    }

    /// The component, ready to be instantiated.
    pub(crate) fn compiled(&self, engine: &wasmtime::Engine) -> Component {
        let mut resolve = Resolve::default();
        let mut worlds = String::new();
        for version in self.contracts {
            let folder = version.strip_suffix(".0").unwrap();
            let mut contract = Resolve::default();
            contract.push_dir(Path::new(WIT).join(folder)).unwrap();
            resolve.merge(contract).unwrap();
            worlds += &format!("include ocelli:pipeline/camera-pipeline@{version};\n");
        }
        let world = format!(
            "package ocelli:tests;
            world guest {{
                {worlds}
                import wasi:io/poll@0.2.0;
                import wasi:clocks/monotonic-clock@0.2.0;
            }}
            {WASI}"
        );
        let package = resolve.push_str("tests.wit", &world).unwrap();
        let world = resolve.select_world(&[package], Some("guest")).unwrap();
        compiled(engine, wat::parse_str(self.wat()).unwrap(), &resolve, world)
    }
}

/// The component of a core module, ready to be instantiated.
#[allow(unsafe_code)]
pub(crate) fn compiled(
    engine: &wasmtime::Engine,
    mut module: Vec<u8>,
    resolve: &Resolve,
    world: WorldId,
) -> Component {
    embed_component_metadata(&mut module, resolve, world, StringEncoding::UTF8).unwrap();
    let bytes =
        ComponentEncoder::default().validate(true).module(&module).unwrap().encode().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [component, compiled] =
        ["component.wasm", "component.cwasm"].map(|name| folder.path().join(name));
    std::fs::write(&component, bytes).unwrap();
    let input = std::fs::File::open(&component).unwrap();
    let output = std::fs::File::create(&compiled).unwrap();
    let mut command = Command::new(program("ocelli-compile"));
    command
        .env_clear()
        .stdin(Stdio::null())
        .fd_mappings(vec![
            FdMapping { parent_fd: input.into(), child_fd: descriptor::COMPONENT },
            FdMapping { parent_fd: output.into(), child_fd: descriptor::OUTPUT },
        ])
        .unwrap();
    let ended = command.output().unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(ended.status.success(), "{} {}", said(&ended.stdout), said(&ended.stderr));
    // SAFETY: `ocelli-compile` has just written the file, and nothing else knows of it.
    unsafe { Component::deserialize_file(engine, &compiled) }.unwrap()
}

/// The engine of the tests.
pub(crate) fn test_engine() -> wasmtime::Engine {
    engine::engine().unwrap()
}
