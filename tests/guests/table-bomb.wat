;; A pipeline that grows a table until the host refuses: what no Rust component can do, for Rust has no word for
;; table.grow. The core module alone; the tests make a component of it with the world of wit/0.1.
(module
  (table $table 1 funcref)
  (memory (export "memory") 1)
  ;; Where the next allocation begins: behind what is written down below.
  (global $next (mut i32) (i32.const 1024))

  ;; Zeros from 0 on: `ok` for a function that returns a result without a value, and an empty list.
  ;; description: name, version, no models, an empty schema.
  (data (i32.const 64) "\80\00\00\00\0a\00\00\00" "\90\00\00\00\05\00\00\00" "\00\00\00\00\00\00\00\00" "\00\00\00\00\00\00\00\00")
  (data (i32.const 128) "table-bomb")
  (data (i32.const 144) "0.1.0")
  ;; The answer to a command: ok, "{}".
  (data (i32.const 160) "\00\00\00\00" "\b0\00\00\00\02\00\00\00")
  (data (i32.const 176) "{}")

  ;; Takes from the end of what is taken: a few settings are all that ever comes.
  (func (export "cabi_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $place i32)
    (local.set $place
      (i32.and
        (i32.add (global.get $next) (i32.sub (local.get $align) (i32.const 1)))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $place) (local.get $size)))
    (local.get $place))

  (func (export "ocelli:pipeline/pipeline@0.1.0#describe") (result i32) (i32.const 64))
  (func (export "ocelli:pipeline/pipeline@0.1.0#init") (param i32 i32) (result i32) (i32.const 0))
  (func (export "ocelli:pipeline/pipeline@0.1.0#command") (param i32 i32) (result i32) (i32.const 160))
  (func (export "ocelli:pipeline/pipeline@0.1.0#snapshot") (result i32) (i32.const 0))
  (func (export "ocelli:pipeline/pipeline@0.1.0#restore") (param i32 i32 i32 i32) (result i32) (i32.const 0))

  (func (export "ocelli:pipeline/pipeline@0.1.0#process") (param i32) (result i32)
    (loop $grow
      (br_if $grow
        (i32.ne (table.grow $table (ref.null func) (i32.const 10000)) (i32.const -1))))
    unreachable)
)
