/** API keys as they are written: what is read, what is refused with its place, and that no message has a key in it. */
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "vitest"
import { UserError } from "../errors.ts"
import { buildKeys, digestOf, keysSchema, makeKey } from "./api-keys.ts"
import { parseConfig } from "./file.ts"
import { defaultSloClasses } from "./slo-classes.ts"

const HASH = `sha256:${digestOf("sk-a")}`

function refusal(read: () => unknown): string {
  try {
    read()
  } catch (error) {
    expect(error).toBeInstanceOf(UserError)
    return (error as Error).message
  }
  throw new Error("it was not refused")
}

it("makes keys that are long and each new", () => {
  const keys = Array.from({ length: 100 }, makeKey)
  expect(new Set(keys).size).toBe(100)
  for (const key of keys) expect(key).toMatch(/^sk-slos-[\w-]{43}$/)
})

it("reads all that a key may say", () => {
  const text = `keys:
  a:
    hash: ${HASH}
    tenant: team
    weight: 2.5
    classes: [chat, code]
    tightest: {ttft: 300ms, ttft_slowdown: 2, tpot: 30ms, max_gap: 1s}
    objectives: false
    requests_per_minute: 60
    tokens_per_minute: 100000
`
  const { keys, tenants } = parseConfig(text, "x")
  expect(keys).toEqual([
    {
      ...{ name: "a", tenant: "team", weight: 2.5, digest: digestOf("sk-a"), classes: ["chat", "code"] },
      tightest: { ttftUs: 300_000, ttftSlowdown: 2, tpotUs: 30_000, maxGapUs: 1_000_000 },
      ...{ objectives: false, requestsPerMinute: 60, tokensPerMinute: 100_000 },
    },
  ])
  expect(tenants).toEqual([{ name: "team", weight: 2.5, keys: [] }])
})

it("reads keys of the environment and of files, and never a key itself", () => {
  const path = join(mkdtempSync(join(tmpdir(), "slos-serve-key-")), "key")
  writeFileSync(path, "sk-file\n")
  const parts = { classes: defaultSloClasses(), tenants: [] }
  const read = (key: string, environment = {}) =>
    buildKeys(keysSchema.parse({ a: { key } }), parts, environment)[0]!.digest
  expect(read("env:A", { A: "sk-env" })).toBe(digestOf("sk-env"))
  expect(read(`file:${path}`)).toBe(digestOf("sk-file"))
  expect(refusal(() => read("env:A"))).toBe("keys.a.key: the environment variable A is not set")
  expect(refusal(() => read("file:/none"))).toBe("keys.a.key: cannot read the file /none (ENOENT)")
  expect(refusal(() => read("env:A", { A: "sk two" }))).not.toContain("sk two")
  const plain = refusal(() => parseConfig("keys:\n  a: {key: sk-secret}\n", "f.yaml"))
  expect(plain).toContain("f.yaml:2:7: keys.a.key keys are not written here: give their `hash`, or env:NAME")
  expect(plain).not.toContain("sk-secret")
})

it.each([
  ["keys:\n  a: {}\n", "f.yaml:2:3: keys.a has either a `hash`"],
  [`keys:\n  a: {hash: "${HASH}", key: "env:PATH"}\n`, "f.yaml:2:3: keys.a has either a `hash`"],
  ["keys:\n  a: {hash: sk-a}\n", "f.yaml:2:7: keys.a.hash must be sha256: and 64 hexadecimal digits"],
  [
    `keys:\n  a: {hash: "${HASH}"}\n  b: {hash: "${HASH}"}\n`,
    "f.yaml:3:3: keys.b has the same key as keys.a",
  ],
  [
    `tenants:\n  t: {key: sk-a}\nkeys:\n  a: {hash: "${HASH}"}\n`,
    "f.yaml:4:3: keys.a has the same key as tenants.t",
  ],
  [
    `keys:\n  a:\n    hash: ${HASH}\n    classes: [chat, chta]\n`,
    "f.yaml:4:21: keys.a.classes[1] names no class: chta (did you mean chat?)",
  ],
  [
    `keys:\n  a:\n    hash: ${HASH}\n    request_per_minute: 5\n`,
    "f.yaml:4:5: keys.a.request_per_minute is not a field this server knows (did you mean requests_per_minute?)",
  ],
  [
    `keys:\n  a: {hash: "${HASH}", requests_per_minute: 0}\n`,
    "keys.a.requests_per_minute must be a whole number of 1 to",
  ],
  [`keys:\n  a: {hash: "${HASH}", tightest: {ttft: 5x}}\n`, 'keys.a.tightest.ttft "5x" is not a duration'],
  [
    `tenants:\n  t: {weight: 2}\nkeys:\n  a: {hash: "${HASH}", tenant: t, weight: 3}\n`,
    "keys.a.weight is 3, and tenants.t says 2",
  ],
])("%j is refused", (text, message) => {
  expect(refusal(() => parseConfig(text, "f.yaml"))).toContain(message)
})
