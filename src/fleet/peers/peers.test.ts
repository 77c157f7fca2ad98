/** Gateways that tell each other over real connections: which are connected, what is heard, and what is forgotten. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { connect, createServer, type Server, type Socket } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterEach, describe, expect, test } from "vitest"
import { freePort } from "../../free-port.ts"
import { PLACEMENTS } from "../told-placements.ts"
import { PEER_VERSION } from "./messages.ts"
import { HERE, openPeersHere, type Talk, talkTo, told } from "./testing.ts"

const opened: { close(): unknown }[] = []
const folder = mkdtempSync(join(tmpdir(), "slos-serve-peers-"))
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})
process.on("exit", () => rmSync(folder, { recursive: true, force: true }))

async function open(...args: Parameters<typeof openPeersHere>) {
  const one = await openPeersHere(...args)
  opened.push(one.peers)
  return one
}

type Gateway = Awaited<ReturnType<typeof open>>

async function talk(port: number, options: { version?: number } = {}): Promise<Talk> {
  const talking = await talkTo(port, options)
  opened.push(talking)
  return talking
}

const WAIT = { timeout: 15_000 }
const connected = (gateways: Gateway[], count: number) =>
  expect
    .poll(() => gateways.map(({ peers }) => peers.counts.connected), WAIT)
    .toEqual(gateways.map(() => count))

/** What each of its processes hears of where sessions are: by which number, and the session. */
function heardBy({ all }: Gateway) {
  const heard: [process: number, from: number, session: number][] = []
  for (const one of all)
    one.onTold(PLACEMENTS, (placed: [{ session: number }, string][], from) => {
      for (const [{ session }] of placed) heard.push([one.index, from, session])
    })
  return heard
}

const tell = (gateway: Gateway, process: number, ...sessions: number[]) =>
  gateway.all[process]!.tellSoon(PLACEMENTS, () =>
    sessions.map((session) => [{ session, promptTokens: 10, prefix: [1.5, 2] }, "10.0.0.7:8000"]),
  )

describe("which are connected", () => {
  test("two that name each other have one connection", async () => {
    const [a, b] = [await freePort(), await freePort()]
    const one = await open([b], { listen: { host: HERE, port: a } })
    const other = await open([a], { listen: { host: HERE, port: b } })
    await connected([one, other], 1)
    const [heardOne, heardOther] = [heardBy(one), heardBy(other)]
    // The second one comes within half a second or so, and one of the two ends then: nothing is lost by that, or heard twice.
    const sessions = Array.from({ length: 40 }, (_, i) => i)
    for (const session of sessions) {
      tell(one, 0, session)
      tell(other, 0, session)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const all = sessions.map((session) => [0, 1, session])
    await expect.poll(() => [heardOne, heardOther]).toEqual([all, all])
    await connected([one, other], 1)
  })

  test("one that is named by the other only is told as much as it", async () => {
    const one = await open([])
    const other = await open([one.peers.port])
    await connected([one, other], 1)
    const [heardOne, heardOther] = [heardBy(one), heardBy(other)]
    tell(one, 0, 7)
    tell(other, 0, 8)
    await expect.poll(() => [heardOne.length, heardOther.length]).toEqual([1, 1])
  })

  test("all addresses of a name, this gateway's own among them", async () => {
    const port = await freePort()
    const lookup = async () =>
      ["127.0.0.1", "127.0.0.2", "127.0.0.3"].map((address) => ({ address, family: 4 }))
    const gateways: Gateway[] = []
    for (const host of ["127.0.0.1", "127.0.0.2", "127.0.0.3"])
      gateways.push(await open([], { peers: [{ host: "gateways", port }], lookup, listen: { host, port } }))
    await connected(gateways, 2)
    const heard = gateways.map(heardBy)
    for (const [i, gateway] of gateways.entries()) tell(gateway, 0, i)
    await expect
      .poll(() => heard.map((all) => all.map(([, , session]) => session).toSorted()))
      .toEqual([
        [1, 2],
        [0, 2],
        [0, 1],
      ])
  })

  test("one that listens at two addresses is one", async () => {
    const one = await open([], { listen: { host: "0.0.0.0", port: 0 } })
    const { port } = one.peers
    const peers = ["127.0.0.1", "127.0.0.2"].map((host) => ({ host, port }))
    const other = await open([], { peers })
    await connected([one, other], 1)
    const heard = heardBy(one)
    tell(other, 0, 1, 2)
    await expect.poll(() => heard.length).toBe(2)
    await new Promise((resolve) => setTimeout(resolve, 50))
    expect(heard).toHaveLength(2)
    expect(other.said.filter((line) => line.includes("is gone"))).toEqual([])
  })

  test("a name that is not known yet, and one that comes to be in a file", async () => {
    const one = await open([])
    const file = join(folder, "peers.yaml")
    writeFileSync(file, "peers: []\n")
    let known = false
    const lookup = async () => {
      if (!known) throw Object.assign(new Error("no such name"), { code: "ENOTFOUND" })
      return [{ address: HERE, family: 4 }]
    }
    const peers = [{ host: "gateways", port: one.peers.port }]
    const named = await open([], { peers, lookup, refreshMs: 20 })
    const inFile = await open([], { file, refreshMs: 20 })
    await expect
      .poll(() => named.said)
      .toContain("the name gateways of peers is not known (ENOTFOUND); it is looked up again")
    known = true
    writeFileSync(file, `- ${HERE}:${one.peers.port}\n`)
    await connected([named, inFile], 1)
    await connected([one], 2)
    expect(named.said.filter((line) => line.includes("not known"))).toHaveLength(1)
    writeFileSync(file, "- http://no\n")
    await expect
      .poll(() => inFile.said.some((line) => line.includes("the peers stay as they are")), WAIT)
      .toBe(true)
    await connected([inFile], 1)
  })
})

describe("what is heard, and forgotten", () => {
  test("every process of one hears every process of the other, by a number of its own", async () => {
    const one = await open([], {}, 2)
    const other = await open([one.peers.port], {}, 3)
    await connected([one, other], 1)
    const heard = heardBy(one)
    for (const process of [0, 1, 2]) tell(other, process, process)
    await expect.poll(() => heard.length).toBe(6)
    const numbers = new Map(heard.map(([, from, session]) => [session, from]))
    expect([...numbers.values()].every((from) => from >= 2)).toBe(true)
    expect(new Set(numbers.values()).size).toBe(3)
    for (const [, from, session] of heard) expect(from).toBe(numbers.get(session))

    const left: number[] = []
    one.all[0]!.onLeft((from) => left.push(from))
    other.hub.left(1)
    await expect.poll(() => left).toEqual([numbers.get(1)])
    // Processes of its own are not mixed up with those.
    one.hub.left(1)
    await expect.poll(() => left).toEqual([numbers.get(1), 1])
    other.peers.close()
    await expect.poll(() => left.length).toBe(4)
    expect(new Set(left.slice(2))).toEqual(new Set([numbers.get(0), numbers.get(2)]))
  })

  test("a gateway that ends is forgotten; one that comes in its place is heard", async () => {
    const port = await freePort()
    const one = await open([port])
    const heard = heardBy(one)
    const left: number[] = []
    one.all[0]!.onLeft((from) => left.push(from))
    const other = await open([], { listen: { host: HERE, port } })
    await connected([one, other], 1)
    tell(other, 0, 1)
    await expect.poll(() => heard.length).toBe(1)
    other.peers.close()
    await connected([one], 0)
    await expect.poll(() => left).toEqual([1])
    const next = await open([], { listen: { host: HERE, port } })
    await connected([one, next], 1)
    tell(next, 0, 2)
    await expect.poll(() => heard.at(-1)).toEqual([0, 1, 2])
  })

  test("a network that lets nothing through any more is found out, and then connected again", async () => {
    const one = await open([])
    const cable = await Cable.open(one.peers.port)
    opened.push(cable)
    const other = await open([cable.port])
    await connected([one, other], 1)
    cable.stands = true
    await connected([one, other], 0)
    expect(other.said.some((line) => line.includes("it says nothing any more"))).toBe(true)
    cable.stands = false
    await connected([one, other], 1)
  })

  test("a burst is heard whole, in order, and nothing else waits for all of it", async () => {
    const one = await open([])
    const other = await open([one.peers.port])
    await connected([one, other], 1)
    const heard = heardBy(one)
    const sessions = Array.from({ length: 40_000 }, (_, i) => i)
    tell(other, 0, ...sessions)
    await expect.poll(() => heard.length, WAIT).toBe(sessions.length)
    expect(heard.map(([, , session]) => session)).toEqual(sessions)
    const { messages, toldWords } = other.peers.counts
    expect(toldWords).toBe(sessions.length)
    // Pieces: none has more than some hundred.
    expect(messages).toBeGreaterThan(sessions.length / 600)
    expect(one.peers.counts.heardWords).toBe(sessions.length)
  })
})

describe("what hubs have for all their processes", () => {
  test("what one says all others hear, in order", async () => {
    const one = await open([])
    const others = [await open([one.peers.port]), await open([one.peers.port])]
    await connected([one], 2)
    const heard = others.map(({ hub }) => {
      const words: unknown[] = []
      hub.onSaid("count", (word) => words.push(word))
      return words
    })
    for (let i = 0; i < 1500; i++) one.peers.links.say("count", i)
    one.peers.links.say("weather", "rain")
    await expect.poll(() => heard.map(({ length }) => length)).toEqual([1500, 1500])
    for (const words of heard) expect(words).toEqual(Array.from({ length: 1500 }, (_, i) => i))
  })

  test("those that have an answer give it; one that has none, fails, hangs or is gone does not", async () => {
    const one = await open([])
    const others: Gateway[] = []
    for (let i = 0; i < 5; i++) others.push(await open([one.peers.port]))
    await connected([one], 5)
    expect(await one.peers.links.ask("story", { id: 7 })).toEqual([])
    const answers = [
      (asked: unknown) => ({ asked, left: undefined, text: "x".repeat(300_000) }),
      () => null,
      () => {
        throw new Error("no such question")
      },
      () => new Promise(() => {}),
      () => {
        others[4]!.peers.close()
        return 1
      },
    ]
    for (const [i, answer] of answers.entries()) others[i]!.hub.answersElsewhere("story", answer)
    const found = await one.peers.links.ask("story", { id: 7 })
    expect(found).toEqual([{ asked: { id: 7 }, text: "x".repeat(300_000) }])
    expect(Object.keys(found[0] as object)).toEqual(["asked", "text"])
    await connected([one], 4)
  })
})

describe("what is not heard", () => {
  test("one with another secret, or of another protocol, is refused and said once", async () => {
    const one = await open([])
    const stranger = await open([one.peers.port], { secret: "another secret, as long" })
    await expect.poll(() => one.said.filter((line) => line.includes("is no peer"))).toHaveLength(1)
    await expect.poll(() => stranger.said.some((line) => line.includes("it has another secret"))).toBe(true)
    const plain = connect(one.peers.port, HERE)
    plain.on("error", () => {})
    plain.write("GET / HTTP/1.1\r\n\r\n")
    await new Promise((resolve) => plain.on("close", resolve))
    expect(one.peers.counts.connected).toBe(0)
    expect(one.said.filter((line) => line.includes("is no peer"))).toHaveLength(1)
  })

  test("another version is told why, and tried again ever less often", async () => {
    const one = await open([])
    const { greeted, ended } = await talk(one.peers.port, { version: PEER_VERSION + 1 })
    expect(await ended).toMatch(/version/)
    expect(greeted.some((message) => message.type === "refused" && /version 3 /.test(message.why))).toBe(true)
    expect(one.peers.counts.connected).toBe(0)
  })

  test.each<[string, object]>([
    ["no message", { type: "news" }],
    ["a process that cannot be", { type: "told", from: -1, clockUs: 1, words: [] }],
    ["words of no sort", told({ topic: PLACEMENTS, word: "here" })],
    [
      "a replica without a name",
      told({ topic: PLACEMENTS, word: [[{ session: 1, promptTokens: 1, prefix: [] }, 7]] }),
    ],
    [
      "keys that are none",
      told({ topic: PLACEMENTS, word: [[{ session: 1, promptTokens: 1, prefix: [null] }, "a"]] }),
    ],
    ["a request without an end", told({ topic: "load of a:1", word: [{ type: "ended", id: 1 }] })],
    [
      "an id that is another's",
      told({ topic: "load of a:1", word: [{ type: "ended", id: 2 ** 32, stopped: true }] }),
    ],
    [
      "tokens that are none",
      told({ topic: "load of a:1", word: [{ type: "tokens", id: 1, tokens: Number.NaN }] }),
    ],
  ])("nonsense ends the connection, and what it told is forgotten: %s", async (_, message) => {
    const one = await open([])
    const left: number[] = []
    one.all[0]!.onLeft((from) => left.push(from))
    const heard = heardBy(one)
    const { send, ended } = await talk(one.peers.port)
    send(told({ topic: PLACEMENTS, word: [[{ session: 1, promptTokens: 1, prefix: [] }, "a"]] }))
    await expect.poll(() => heard.length).toBe(1)
    send(message)
    await ended
    await connected([one], 0)
    await expect.poll(() => left).toEqual([1])
  })

  test("topics that are not known here are passed over", async () => {
    const one = await open([])
    const heard = heardBy(one)
    const { send } = await talk(one.peers.port)
    send(told({ topic: "weather", word: "rain" }, { topic: PLACEMENTS, word: [] }))
    send(told({ topic: PLACEMENTS, word: [[{ session: 5, promptTokens: 1, prefix: [] }, "a"]] }))
    await expect.poll(() => heard).toEqual([[0, 1, 5]])
    await connected([one], 1)
  })
})

/** Between two ends; while it stands nothing goes through, and nothing is cut. */
class Cable {
  #stands = false
  readonly #pairs = new Set<Socket>()
  #server!: Server

  static async open(to: number): Promise<Cable> {
    const cable = new Cable()
    cable.#server = createServer((socket) => {
      const beyond = connect(to, HERE)
      for (const [from, into] of [
        [socket, beyond],
        [beyond, socket],
      ] as const) {
        cable.#pairs.add(from)
        from.on("error", () => into.destroy())
        from.on("close", () => {
          cable.#pairs.delete(from)
          into.destroy()
        })
        from.on("data", (piece) => into.write(piece))
        if (cable.#stands) from.pause()
      }
    })
    await new Promise<void>((resolve) => cable.#server.listen(0, HERE, resolve))
    return cable
  }

  get port(): number {
    return (this.#server.address() as { port: number }).port
  }

  set stands(stands: boolean) {
    this.#stands = stands
    for (const one of this.#pairs) stands ? one.pause() : one.resume()
  }

  close(): void {
    for (const one of this.#pairs) one.destroy()
    this.#server.close()
  }
}
