/** Configuration as an operator meets it: the commands, where values come from, the schema, and the documented example. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { Command, InvalidArgumentError } from "commander"
import { describe, expect, it } from "vitest"
import { digestOf } from "../config/api-keys.ts"
import { faultsOf, parseConfig } from "../config/file.ts"
import { configJsonSchema } from "../config/json-schema.ts"
import { SETTINGS } from "../config/settings.ts"
import { shown } from "./config-show.ts"
import { readSources, slipsIn } from "./option-sources.ts"
import { addServeOptions } from "./serve.ts"
import type { ServeOptions } from "./serve-options.ts"
import { register as registerVllm } from "./vllm.ts"

const ROOT = resolve(import.meta.dirname, "../..")
const page = readFileSync(join(ROOT, "docs/config.md"), "utf8")
const example = page.match(/```yaml\n([\s\S]*?)```/)![1]!
const folder = mkdtempSync(join(tmpdir(), "slos-serve-config-"))

function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const cli = (args: readonly string[], { input = "", env = {} } = {}) =>
  spawnSync(process.execPath, [join(ROOT, "src/cli/main.ts"), "config", ...args], {
    ...{ encoding: "utf8", input, env: { ...process.env, NO_COLOR: "1", ...env } },
  })

/** What `serve` would run with. */
async function read(args: readonly string[], environment: Record<string, string> = {}) {
  const program = new Command().exitOverride()
  const command = addServeOptions(
    program.command("serve").configureOutput({ writeErr: () => {} }),
  ).exitOverride()
  readSources(command, environment)
  command.action(() => {})
  await program.parseAsync(["serve", ...args], { from: "user" })
  return { command, options: command.opts<ServeOptions>() }
}

describe("the file", () => {
  it("has each option of serve and vllm, or says why not", () => {
    const program = new Command()
    registerVllm(program)
    const commands = [addServeOptions(new Command("serve")), program.commands[0]!]
    const options = new Set(commands.flatMap((command) => command.options.map((one) => one.attributeName())))
    // The file itself; what has a section of its own; vLLM's command alone.
    const elsewhere = [
      "config",
      "tenant",
      "backend",
      "backendFile",
      "set",
      "vllm",
      "vllmLog",
      "verbose",
      "metricsPort",
    ]
    const inFile = Object.values(SETTINGS).flatMap((fields) =>
      Object.values(fields).map(({ option }) => option),
    )
    expect([...inFile, ...elsewhere].sort()).toEqual([...options].sort())
    for (const [section, fields] of Object.entries(SETTINGS))
      for (const name of Object.keys(fields))
        expect(page).toMatch(
          new RegExp(
            `\\| \`${section}\`.*\`${name}\`|\`${section}\`, \`telemetry\` \\| .*\`${name}\`|\`logging\`, \`${section}\` \\| .*\`${name}\``,
          ),
        )
  })

  it("takes of an option what its flag takes, and no more", () => {
    const command = addServeOptions(new Command("serve"))
    const values = [
      -1, 0, 0.4, 0.5, 1, 1.5, 2, 30, 63, 64, 65, 128, 257, 1025, 3601, 65_535, 65_536, 1e5, 1e6, 1e9, 2e9,
    ]
    for (const fields of Object.values(SETTINGS))
      for (const { option, schema } of Object.values(fields)) {
        const flag = command.options.find((one) => one.attributeName() === option)!
        if (flag.parseArg === undefined || flag.argChoices !== undefined) continue
        if (["allowedHost", "corsOrigin", "peer", "peerSecret", "protect"].includes(option)) continue
        for (const value of values) {
          const parsed = schema.safeParse(value)
          let taken: unknown
          try {
            taken = flag.parseArg(String(value), undefined)
          } catch (error) {
            expect(error).toBeInstanceOf(InvalidArgumentError)
          }
          expect(parsed.success ? parsed.data : undefined, `${option} ${value}`).toEqual(taken)
        }
      }
  })

  it("is documented by an example that can be read", () => {
    expect(faultsOf(file("example.yaml", example))).toEqual([])
    const { keys, tenants, classes, settings } = parseConfig(example, "example")
    expect(example).toContain("tls:")
    expect(keys.map(({ name }) => name)).toEqual(["alice-laptop", "nightly"])
    expect(tenants).toMatchObject([
      { name: "alice", weight: 3 },
      { name: "batch", weight: 0.5 },
    ])
    expect(classes.default.name).toBe("chat")
    expect(settings).toContainEqual({
      field: ["limits", "body_limit"],
      option: "bodyLimit",
      value: 8 * 2 ** 20,
    })
  })

  it("has a JSON Schema that is published as it is", () => {
    const published = JSON.parse(readFileSync(join(ROOT, "docs/config.schema.json"), "utf8"))
    expect(published).toEqual(JSON.parse(JSON.stringify(configJsonSchema())))
    expect(published.properties.backends.items.anyOf).toHaveLength(2)
    expect(published.properties.limits.anyOf[0].properties.max_queue).toMatchObject({
      type: "integer",
      minimum: 1,
    })
    expect(JSON.parse(cli(["schema"]).stdout)).toEqual(published)
  })
})

describe("an option", () => {
  const path = file(
    "port.yaml",
    "server: {port: 1111, host: 10.0.0.1}\nlimits: {request_timeout: 2m, body_limit: 1m}\n",
  )

  it("is the flag's, else the environment's, else the file's, else the default", async () => {
    const env = { SLOS_SERVE_PORT: "2222", SLOS_SERVE_CONFIG: path, SLOS_SERVE_BODY_LIMIT: "2m" }
    const { options, command } = await read(["--port", "3333"], env)
    expect(options).toMatchObject({
      port: 3333,
      host: "10.0.0.1",
      requestTimeout: 120,
      bodyLimit: 2 ** 21,
      maxQueue: 2048,
    })
    const text = shown(command, options)
    expect(text).toMatch(/port: 3333 +# flag --port\n/)
    expect(text).toMatch(/body_limit: 2097152 +# environment SLOS_SERVE_BODY_LIMIT\n/)
    expect(text).toMatch(/request_timeout: 120 +# file .*port\.yaml\n/)
    expect(text).toMatch(/max_queue: 2048 +# default\n/)
    expect(text).toMatch(/# threads: +# not set\n/)
    expect((await read([], env)).options.port).toBe(2222)
    expect((await read(["--config", path])).options.port).toBe(1111)
  })

  it("is shown as something that can be read again", async () => {
    const { command, options } = await read(["--config", path])
    const again = parseConfig(shown(command, options), "shown")
    const values = again.settings.map(({ option, value }) => [option, value])
    expect(Object.fromEntries(values)).toMatchObject({ port: 1111, bodyLimit: 2 ** 20, requestTimeout: 120 })
  })

  it("of yes and no, and one that is given several times, can be in the environment", async () => {
    const { options } = await read([], {
      ...{
        SLOS_SERVE_PROFILE: "false",
        SLOS_SERVE_KV_UNIFIED: "yes",
        SLOS_SERVE_REQUIRE_KEY: "0",
        SLOS_SERVE_OFFLINE: "1",
      },
      ...{ SLOS_SERVE_TENANT: "a=sk-a,3\n b=sk-b", SLOS_SERVE_POLICY: "edf", SLOS_SERVE_THREADS: "" },
    })
    expect(options).toMatchObject({
      profile: false,
      kvUnified: true,
      requireKey: false,
      offline: true,
      policy: "edf",
    })
    expect(options.tenant).toEqual([
      { name: "a", weight: 3, keys: ["sk-a"] },
      { name: "b", weight: 1, keys: ["sk-b"] },
    ])
    expect(options.threads).toBeUndefined()
  })

  it.each([
    [
      { SLOS_SERVE_PORT: "x" },
      "the environment variable SLOS_SERVE_PORT (for --port): It must be a whole number",
    ],
    [{ SLOS_SERVE_OFFLINE: "maybe" }, 'SLOS_SERVE_OFFLINE must be true or false, not "maybe"'],
    [{ SLOS_SERVE_POLICY: "best" }, "SLOS_SERVE_POLICY (for --policy): Allowed choices are"],
  ])("of the environment that cannot be meant is refused: %j", async (env, message) => {
    await expect(read([], env)).rejects.toThrow(message)
  })

  it("is not what Kubernetes says of a service of our name; a slip is told", async () => {
    const env = {
      SLOS_SERVE_PORT: "tcp://10.0.0.1:80",
      SLOS_SERVE_MAX_QUEU: "5",
      SLOS_SERVE_PORT_80_TCP: "tcp://x",
    }
    const { options, command } = await read([], env)
    expect(options.port).toBe(8080)
    expect(slipsIn(command, env)).toEqual([
      "the environment variable SLOS_SERVE_MAX_QUEU is none of serve's (did you mean SLOS_SERVE_MAX_QUEUE?)",
    ])
  })
})

describe("the command", () => {
  it("check says all that is wrong, each with its place and what is near", () => {
    const path = file(
      "bad.yaml",
      "servr: {port: 1}\nlimits:\n  max_queu: 5\n  body_limit: 8x\nkeys:\n  a: {hash: x}\n",
    )
    const { status, stderr } = cli(["check", path])
    expect(status).toBe(2)
    expect(stderr.split("\n").map((line) => line.replace(path, "f"))).toEqual(
      expect.arrayContaining([
        "f:1:1: servr is not a field this server knows (did you mean server?)",
        "f:3:3: limits.max_queu is not a field this server knows (did you mean max_queue?)",
        "f:4:3: limits.body_limit must be between 1k and 1g: write 8m, 512k, or a number of bytes",
        "f:6:7: keys.a.hash must be sha256: and 64 hexadecimal digits, as `slos-serve config key` prints it",
      ]),
    )
    const fine = cli(["check", file("fine.yaml", example)])
    expect([fine.status, fine.stdout]).toEqual([
      ...[
        0,
        `${join(folder, "fine.yaml")} is right (classes: 3, tenants: 2, keys: 2, backends: 0, options: 24)\n`,
      ],
    ])
  })

  it("key makes a key that the file knows by its hash", () => {
    const made = JSON.parse(cli(["key", "--json"]).stdout) as { key: string; hash: string }
    expect(made.hash).toBe(`sha256:${digestOf(made.key)}`)
    expect(cli(["key", "--stdin"], { input: "sk-mine\n" }).stdout).toBe(
      `hash  sha256:${digestOf("sk-mine")}\n`,
    )
  })

  it("show has no key in it", () => {
    const path = file(
      "keys.yaml",
      "tenants:\n  a: {key: sk-secret-1}\nbackends: [{url: 'http://b', key: sk-secret-2}]\n",
    )
    for (const more of [[], ["--json"]]) {
      const { stdout, stderr, status } = cli(["show", "--config", path, ...more], {
        env: { SLOS_SERVE_TENANT: "b=sk-secret-3" },
      })
      expect([status, stderr]).toEqual([0, ""])
      expect(stdout).toMatch(/a"?: \{"weight":1,"keys":1\}|"keys": 1/)
      expect(stdout).not.toContain("sk-secret")
    }
  })
})
