/** Which backends there are: options, names with several addresses, a file that changes. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, test } from "vitest"
import { parseInlineBackend } from "../../config/backends.ts"
import { freePort } from "../../free-port.ts"
import type { ReplicaHost } from "../../replica/host.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { endpointsOf } from "./addresses.ts"
import { BackendSet, type BackendSetOptions } from "./backend-set.ts"
import { FakeBackend } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

const config = (text: string) => parseInlineBackend(text, "--backend")

async function open(options: Partial<BackendSetOptions> = {}) {
  const said: string[] = []
  const there = new Set<ReplicaHost>()
  const set = await BackendSet.open(
    { backends: [], apps: 20, probeMs: 20, refreshMs: 50, log: (message) => said.push(message), ...options },
    { joined: (host) => there.add(host), leaves: (host) => there.delete(host) },
  )
  opened.push(set)
  return { set, said, there, names: () => [...there].map(({ name }) => name).sort() }
}

async function fake(port = 0) {
  const backend = await FakeBackend.open({ port })
  opened.push(backend)
  return backend
}

async function folder(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "backends-"))
  opened.push({ close: () => rm(path, { recursive: true }) })
  return path
}

describe("names", () => {
  const lookup = (addresses: [string, number][]) => async () =>
    addresses.map(([address, family]) => ({ address, family }))
  const urls = async (url: string, addresses: [string, number][]) =>
    (await endpointsOf(config(url), lookup(addresses))).map((endpoint) => endpoint.url)

  test("with several addresses are as many backends, of one family", async () => {
    const many: [string, number][] = [
      ["10.0.0.2", 4],
      ["fd00::1", 6],
      ["10.0.0.1", 4],
      ["10.0.0.2", 4],
    ]
    expect(await urls("http://pods:8000/llm", many)).toEqual([
      "http://10.0.0.1:8000/llm",
      "http://10.0.0.2:8000/llm",
    ])
    const [first] = await endpointsOf(config("https://pods"), lookup(many))
    expect(first).toMatchObject({ url: "https://10.0.0.1", host: "pods" })
    const sixes: [string, number][] = [
      ["fd00::1", 6],
      ["fd00::2", 6],
    ]
    expect(await urls("http://pods:1", sixes)).toEqual(["http://[fd00::1]:1", "http://[fd00::2]:1"])
  })

  test("with one address, of this machine, or that cannot be looked up stand for themselves", async () => {
    expect(await urls("http://one:1", [["10.0.0.1", 4]])).toEqual(["http://one:1"])
    const loopback: [string, number][] = [
      ["127.0.0.1", 4],
      ["127.0.0.2", 4],
    ]
    expect(await urls("http://localhost:1", loopback)).toEqual(["http://localhost:1"])
    expect(await urls("http://10.0.0.9:1", [])).toEqual(["http://10.0.0.9:1"])
    const failing = () => Promise.reject(new Error("ENOTFOUND"))
    expect(await endpointsOf(config("http://gone:1"), failing)).toMatchObject([
      { url: "http://gone:1", host: null },
    ])
  })

  test("that change: what is new joins, what is gone leaves", async () => {
    let addresses = ["127.1.0.1", "10.255.0.1"]
    const { set, names } = await open({
      backends: [config("http://pods:1")],
      lookup: async () => addresses.map((address) => ({ address, family: 4 })),
    })
    // One is of this machine: the name stands for itself.
    expect(names()).toEqual(["pods:1"])
    addresses = ["10.255.0.1", "10.255.0.2"]
    await set.refresh()
    expect(names()).toEqual(["10.255.0.1:1", "10.255.0.2:1"])
    addresses = ["10.255.0.2", "10.255.0.3"]
    await set.refresh()
    expect(names()).toEqual(["10.255.0.2:1", "10.255.0.3:1"])
  })

  test("two that stand for one address are one backend, and it is said", async () => {
    const lookup = async () => [
      { address: "10.255.0.1", family: 4 },
      { address: "10.255.0.2", family: 4 },
    ]
    const { names, said } = await open({ backends: [config("http://a:1"), config("http://b:1")], lookup })
    expect(names()).toEqual(["10.255.0.1:1", "10.255.0.2:1"])
    expect(said).toContainEqual("http://b:1 is http://10.255.0.1:1, which is a backend already")
  })
})

describe("a file", () => {
  test("joins backends to those of the options, and is read again when it changes", async () => {
    const [first, second] = [await fake(), await fake()]
    const file = join(await folder(), "backends.yaml")
    await writeFile(file, `- ${second.url}\n`)
    const { there, names } = await open({ backends: [config(`vllm=${first.url}`)], file })
    await until(() => expect([...there].map(({ state }) => state)).toEqual(["ready", "ready"]))
    const leaving = [...there][1]!
    const sink = new Kept()
    second.options.firstMs = 300
    leaving.submit(jobOf(), sink)
    await writeFile(file, "backends: []\n")
    await until(() => expect(names()).toHaveLength(1))
    // What it had ends.
    expect((await sink.over())[0]).toMatchObject({ kind: "finished" })
    await until(() => expect(leaving.state).toBe("closed"))
  })

  test("that becomes nonsense changes nothing, and it is said", async () => {
    const first = await fake()
    const file = join(await folder(), "backends.yaml")
    await writeFile(file, `backends:\n  - url: ${first.url}\n    weight: 2\n`)
    const { names, said } = await open({ file })
    expect(names()).toHaveLength(1)
    await writeFile(file, "- url: http://a\n  wait: 2\n")
    await until(() => expect(said.at(-1)).toContain("the backends stay as they are"))
    expect(names()).toHaveLength(1)
  })
})

describe("what cannot be meant is an error at once", () => {
  test.each([
    [
      { backends: [config("http://a:1"), config("http://a:1/v1")] },
      "two backends have the address http://a:1",
    ],
    [
      { backends: [config("http://127.0.0.1:1"), config("http://localhost:1")] },
      "two backends have the address http://localhost:1",
    ],
    [{ file: "/nowhere/backends.yaml" }, "/nowhere/backends.yaml: ENOENT"],
  ] as const)("%o", async (options, message) => {
    await expect(open(options)).rejects.toThrow(message)
  })
})

test("one that is not there is said once, and again when it serves", async () => {
  const backend = await fake(await freePort())
  await backend.close()
  const { said, there } = await open({ backends: [config(backend.url)] })
  await until(() => expect(said).toHaveLength(1))
  expect(said[0]).toMatch(/^backend 127.0.0.1:\d+ is not there \(nothing listens there\); it is tried again$/)
  await backend.listen()
  await until(() => expect([...there][0]!.state).toBe("ready"))
  expect(said[1]).toMatch(/serves m-1$/)
})

test("a backend says what kind it is, where its operator does not", async () => {
  const backend = await FakeBackend.open({ kind: "llama-server", slots: 3 })
  opened.push(backend)
  const { there } = await open({ backends: [config(backend.url)] })
  const [host] = there
  await until(() => expect(host!.state).toBe("ready"))
  await until(() => expect(host!.info!.model.fingerprint).toBe("llama-server:m-1"))
  const sink = new Kept()
  host!.submit(jobOf(), sink)
  await sink.over()
  expect(backend.asked[0]!.body).toMatchObject({ timings_per_token: true })
})

describe("one of another model than those that serve", () => {
  const both = async (...names: [string, string]) => {
    const [one, other] = [await FakeBackend.open({ model: "m-1" }), await FakeBackend.open({ model: "m-2" })]
    opened.push(one, other)
    const { there, said } = await open({
      backends: [config(one.url + names[0]), config(other.url + names[1])],
    })
    const states = () => [...there].map(({ state }) => state).sort()
    return { one, other, there, said, states }
  }

  test("is not used, and it is said what to do, until the others are gone", async () => {
    const { one, other, there, said, states } = await both("", "")
    await until(() => expect(states()).toEqual(["ready", "starting"]))
    await until(() =>
      expect(said.join("\n")).toMatch(/it serves m-\d, and 127.0.0.1:\d+ serves m-\d; give both one name/),
    )
    const [used, unused] = [...there].sort((a) => (a.state === "ready" ? -1 : 1)) as [
      ReplicaHost,
      ReplicaHost,
    ]
    await (used.info!.model.name === "m-1" ? one : other).close()
    await until(() => expect(unused.state).toBe("ready"))
    expect(used.state).toBe("down")
  })

  test("is asked for theirs where it has that as well", async () => {
    const one = await fake()
    const other = await FakeBackend.open({ model: "m-1", listedFirst: ["m-0"] })
    opened.push(other)
    const file = join(await folder(), "backends.yaml")
    await writeFile(file, `- ${one.url}\n`)
    const { there } = await open({ file })
    await until(() => expect([...there].map(({ state }) => state)).toEqual(["ready"]))
    await writeFile(file, `- ${one.url}\n- ${other.url}\n`)
    await until(() => expect([...there].map(({ state }) => state)).toEqual(["ready", "ready"]))
    expect([...there].map(({ info }) => info!.model.name)).toEqual(["m-1", "m-1"])
  })

  test("is used where both have one name for clients", async () => {
    const { states } = await both(",model=chat:m-1", ",model=chat:m-2")
    await until(() => expect(states()).toEqual(["ready", "ready"]))
  })
})
