/** Prompts that other servers compute, over real sockets: what each half is asked, and what happens when the first fails. */
import { Agent } from "undici"
import { afterEach, expect, test } from "vitest"
import { freePort } from "../../free-port.ts"
import { jobOf, Kept } from "../../serve/host.suite.ts"
import { until } from "../../serve/until-testing.ts"
import { BACKEND_KINDS } from "./kinds.ts"
import { RemoteHost } from "./remote-host.ts"
import { FakeBackend } from "./testing.ts"

const opened: { close(): Promise<unknown> }[] = []
afterEach(async () => {
  for (const one of opened.splice(0).reverse()) await one.close()
})

/** What a producer of KV says of where it lies. */
const LIES = { do_remote_prefill: true, remote_engine_id: "e-1", remote_block_ids: [3, 4], remote_host: "p" }

type Answers = "where" | "fails" | "nothing" | "refuses"
async function producer(answers: Answers = "where", port = 0): Promise<FakeBackend> {
  const backend = await FakeBackend.open({ port })
  opened.push(backend)
  backend.misbehave = (_, response) => {
    if (answers === "nothing") return true
    const status = { where: 200, fails: 500, refuses: 400 }[answers]
    response.writeHead(status, { "content-type": "application/json" })
    response.end(JSON.stringify(answers === "where" ? { choices: [], kv_transfer_params: LIES } : {}))
    return true
  }
  return backend
}

async function pair(prefill: readonly FakeBackend[]) {
  const decoder = await FakeBackend.open()
  const dispatcher = new Agent()
  const host = new RemoteHost({
    ...{ name: "far", url: decoder.url, kind: BACKEND_KINDS.vllm, apps: 20, dispatcher, probeMs: 20 },
    timeouts: { connectMs: 1000, firstByteMs: 5000, silenceMs: 5000 },
    prefill: prefill.map(({ url }) => url),
  })
  opened.push(decoder, dispatcher, host)
  await until(() => expect(host.state).toBe("ready"))
  const run = async (job = jobOf({ maxTokens: 50 })) => {
    const sink = new Kept(job.choices.length)
    host.submit(job, sink)
    return { text: sink, ends: await sink.over() }
  }
  return { decoder, host, run }
}

test("the prompt is computed by a producer for one token, then decoded with its word of where the KV lies", async () => {
  const first = await producer()
  const { decoder, run } = await pair([first])
  const { text, ends } = await run()
  expect(text.text[0]).toBe("one two three four")
  expect(ends[0]).toMatchObject({ kind: "finished" })
  expect(first.asked[0]).toMatchObject({
    path: "/v1/chat/completions",
    body: { stream: false, max_tokens: 1, messages: [{ role: "user", content: "Say hello" }] },
  })
  expect(first.asked[0]!.body.kv_transfer_params).toMatchObject({ do_remote_decode: true })
  expect(first.asked[0]!.body.stream_options).toBeUndefined()
  expect(decoder.asked[0]!.body).toMatchObject({ stream: true, max_tokens: 50, kv_transfer_params: LIES })
  expect(decoder.asked[0]!.headers["x-request-id"]).toBe(first.asked[0]!.headers["x-request-id"])
})

test("producers take turns; one that fails is passed over, and none is asked twice of one request", async () => {
  const [well, broken] = [await producer(), await producer("fails")]
  const { decoder, run } = await pair([broken, well])
  for (let i = 0; i < 4; i++) await run()
  expect(broken.asked).toHaveLength(1)
  expect(well.asked).toHaveLength(4)
  for (const { body } of decoder.asked) expect(body.kv_transfer_params).toEqual(LIES)
  const others = [await producer(), await producer()]
  const even = await pair(others)
  for (let i = 0; i < 4; i++) await even.run()
  expect(others.map(({ asked }) => asked.length)).toEqual([2, 2])
})

test("where no producer does, or the request is at fault, the decoding engine has it as it came", async () => {
  for (const answers of ["fails", "refuses"] as const) {
    const { decoder, run } = await pair([await producer(answers)])
    const { text } = await run()
    expect(text.text[0]).toBe("one two three four")
    expect(decoder.asked[0]!.body.kv_transfer_params).toBeUndefined()
  }
  const gone = await producer("where", await freePort())
  const { run } = await pair([gone])
  await gone.close()
  expect((await run()).ends[0]).toMatchObject({ kind: "finished" })
  await gone.listen()
})

test("a request that is cancelled while its prompt is computed is decoded nowhere", async () => {
  const first = await producer("nothing")
  const { decoder, host } = await pair([first])
  const job = jobOf({ maxTokens: 5 })
  const sink = new Kept(1)
  host.submit(job, sink)
  await until(() => expect(first.asked).toHaveLength(1))
  host.cancel(job.id)
  expect(await sink.over()).toMatchObject([{ kind: "cancelled" }])
  expect(decoder.asked).toHaveLength(0)
  expect(host.twin.inFlight).toBe(0)
})

test("what has begun elsewhere is computed where it is decoded", async () => {
  const first = await producer()
  const { decoder, run } = await pair([first])
  const begun = {
    steps: [{ tokens: [100, 101], agoUs: 1000 }],
    text: { content: "one two", reasoning: "", toolCalls: 0 },
  }
  const job = jobOf({ maxTokens: 50 })
  await run({ ...job, choices: job.choices.map((choice) => ({ ...choice, begun })) })
  expect(first.asked).toHaveLength(0)
  expect(decoder.asked).toHaveLength(1)
})
