/** Tenants as they are written: what is read, and what is refused with its place. */
import { describe, expect, it } from "vitest"
import { UserError } from "../errors.ts"
import { parseConfig } from "./file.ts"
import { buildTenants, checkTenants, parseInlineTenant } from "./tenants.ts"

function refusal(read: () => unknown): string {
  try {
    read()
  } catch (error) {
    expect(error).toBeInstanceOf(UserError)
    return (error as Error).message
  }
  throw new Error("it was not refused")
}

describe("in a config file", () => {
  it("have keys and weights, and may stand without classes", () => {
    const text = "tenants:\n  alice: {key: sk-a, weight: 3}\n  bob:\n    keys: [sk-b, sk-c]\n  a|b@x:\n"
    const { classes, tenants } = parseConfig(text, "x")
    expect(tenants).toEqual([
      { name: "alice", weight: 3, keys: ["sk-a"] },
      { name: "bob", weight: 1, keys: ["sk-b", "sk-c"] },
      { name: "a|b@x", weight: 1, keys: [] },
    ])
    expect(classes.default.name).toBe("chat")
    expect(parseConfig("classes:\n  a: {tpot: 5ms}\n", "x").tenants).toEqual([])
    const both = parseConfig("classes:\n  a: {tpot: 5ms}\ntenants:\n  t:\n", "x")
    expect([both.classes.default.name, both.tenants[0]!.name]).toEqual(["a", "t"])
  })

  it("may have their keys from the environment", () => {
    const section = { alice: { key: "sk-a", key_env: "ALICE" } }
    expect(buildTenants(section, { ALICE: "sk-b" })[0]!.keys).toEqual(["sk-a", "sk-b"])
    for (const value of [undefined, "", "two words"])
      expect(refusal(() => buildTenants(section, { ALICE: value }))).toBe(
        "tenants.alice.key_env: the environment variable ALICE must be 1 to 512 visible ASCII characters",
      )
  })

  it.each([
    ["tenants:\n  a: {weight: 0}\n", "f.yaml:2:7: tenants.a.weight must be a number from 0.001 to 1000"],
    ["tenants:\n  a:\n    weight: .inf\n", "f.yaml:3:5: tenants.a.weight"],
    ["tenants:\n  a:\n    key: 5\n", "f.yaml:3:5: tenants.a.key must be a string, not a number"],
    [
      "tenants:\n  a:\n    key: sk a\n",
      "f.yaml:3:5: tenants.a.key must be 1 to 512 visible ASCII characters",
    ],
    ["tenants:\n  a:\n    keys: sk\n", "f.yaml:3:5: tenants.a.keys must be a list, not a string"],
    ["tenants:\n  a:\n    kye: sk\n", "f.yaml:3:5: tenants.a.kye is not a field this server knows"],
    ["tenants:\n  a: sk\n", "f.yaml:2:3: tenants.a must be a map of fields, not a string"],
    ["tenants:\n  a b: {}\n", "f.yaml:2:3: tenants.a b a tenant's name is 1 to 128 visible ASCII characters"],
    ["tenants: [a]\n", "f.yaml:1:1: tenants must be a map"],
    ["tenants:\n", "f.yaml:1:1: tenants must be a map"],
    [
      "tenants:\n  a: {key_env: NO_SUCH_VARIABLE_AT_ALL}\n",
      "the environment variable NO_SUCH_VARIABLE_AT_ALL must",
    ],
    ["tenants:\n  a:\n  a:\n", "f.yaml:2:5: Map keys must be unique"],
  ])("%j is refused", (text, message) => {
    expect(refusal(() => parseConfig(text, "f.yaml"))).toContain(message)
  })
})

describe("on a command line", () => {
  const read = (text: string) => parseInlineTenant(text, "--tenant")

  it("have a key, a weight, or both", () => {
    expect(read("alice=sk-a")).toEqual({ name: "alice", weight: 1, keys: ["sk-a"] })
    expect(read("alice=sk=a==,2.5")).toEqual({ name: "alice", weight: 2.5, keys: ["sk=a=="] })
    expect(read("alice=,0.5")).toEqual({ name: "alice", weight: 0.5, keys: [] })
    expect(read("alice=")).toEqual({ name: "alice", weight: 1, keys: [] })
  })

  it.each([
    ["alice", "--tenant: there is no = after the name"],
    ["=sk", "--tenant: a tenant's name is 1 to 128 visible ASCII characters"],
    ["a b=sk", "--tenant: a tenant's name is"],
    ["alice=sk,", "--tenant: the weight of alice must be a number from 0.001 to 1000"],
    ["alice=sk,two", "--tenant: the weight of alice must be"],
    ["alice=sk,0", "--tenant: the weight of alice must be"],
    ["alice=sk,1,2", "--tenant: the weight of alice must be"],
    ["alice=s k", "--tenant: the key of alice must be 1 to 512 visible ASCII characters"],
  ])("%s is refused, and its key not shown", (text, message) => {
    const told = refusal(() => read(text))
    expect(told).toContain(message)
    expect(told).toContain("; expected name=key or name=key,weight")
    expect(told).not.toContain("\n")
    expect(told).not.toMatch(/sk|s k/)
  })
})

it("no name and no key is given twice", () => {
  const of = (name: string, ...keys: string[]) => ({ name, keys, weight: 1 })
  expect(checkTenants([of("a", "k1", "k2"), of("b", "k3"), of("c")])).toBeUndefined()
  expect(refusal(() => checkTenants([of("a"), of("a", "k")]))).toContain("tenant a is given twice")
  expect(refusal(() => checkTenants([of("a", "k"), of("b", "k")]))).toBe("tenants a and b have the same key")
  expect(refusal(() => checkTenants([of("a", "k", "k")]))).toBe("tenant a has the same key twice")
})
