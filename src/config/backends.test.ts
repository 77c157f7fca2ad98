/** Backends as operators name them. */
import { describe, expect, test } from "vitest"
import { backendsSchema, buildBackends, checkBackends, parseInlineBackend } from "./backends.ts"

const inline = (text: string) => parseInlineBackend(text, "--backend", { KEY: "secret", EMPTY: "" })

describe("on a command line", () => {
  test("a URL alone, or all there is to say", () => {
    expect(inline("http://10.0.0.7:8000")).toEqual({
      ...{
        kind: null,
        url: "http://10.0.0.7:8000",
        weight: 1,
        models: new Map(),
        apiKey: null,
        priority: false,
        planner: null,
        prefill: [],
      },
    })
    const all = inline(
      "vllm=https://gpu/llm/v1/,weight=2.5,model=a:b:c,model=same,key_env=KEY,priority,planner=http://gpu:9091/",
    )
    expect(all).toEqual({
      ...{ kind: "vllm", url: "https://gpu/llm", weight: 2.5, apiKey: "secret", priority: true },
      planner: "http://gpu:9091",
      prefill: [],
      models: new Map([
        ["a", "b:c"],
        ["same", "same"],
      ]),
    })
  })

  test.each([
    ["", "is no URL"],
    ["10.0.0.7:8000", "is no URL"],
    ["ftp://a", "is no URL"],
    ["triton=http://a", "kind: must be one of slos-serve, vllm"],
    ["http://a,weight=0", "weight: must be a number from 0.01"],
    ["http://a,weight=", "weight: must be a number"],
    ["http://a,weight=x", "weight: must be a number"],
    ["http://a,wait=2", '"wait=2" is not known'],
    ["http://a,model=:b", "give model=theirs:its"],
    ["http://a,key_env=NONE", "the environment variable NONE is not set"],
    ["http://a,key_env=EMPTY", "the environment variable EMPTY is not set"],
    ["http://u:p@a", "a URL with a password in it"],
    ["http://a/?x=1", "has a query"],
    ["http://a,planner=b", 'planner: "b" is no URL'],
    ["http://a,planner=:70000", 'planner: ":70000" is no URL'],
    ["vllm=http://a,prefill=b", 'prefill: "b" is no URL'],
    ["sglang=http://a,prefill=http://b", "only a vLLM has its prompts computed elsewhere"],
    ["http://a,prefill=http://b", "give vllm=URL"],
    ["sglang=http://a,planner=http://b", "only a vLLM has a planner, not sglang"],
  ])("%s is refused: %s", (text, message) => {
    expect(() => inline(text)).toThrow(message)
  })
})

test("servers that compute its prompts, as many as there are", () => {
  expect(inline("vllm=http://a,prefill=http://b:1/,prefill=http://c").prefill).toEqual([
    "http://b:1",
    "http://c",
  ])
})

test("a planner at a port of the backend's own address", () => {
  expect(inline("vllm=http://a,planner=:9091").planner).toBe(":9091")
})

test("as a section of a file", () => {
  const section = backendsSchema.parse([
    "http://a:1",
    { url: "http://b:2", kind: "sglang", weight: 3, models: { mine: "its" }, key: "k", priority: true },
  ])
  expect(buildBackends(section)).toMatchObject([
    { url: "http://a:1", kind: null },
    { url: "http://b:2", kind: "sglang", weight: 3, apiKey: "k", priority: true },
  ])
  expect(() => buildBackends(backendsSchema.parse(["http://a", "b"]))).toThrow('backends[1]: "b" is no URL')
  expect(backendsSchema.safeParse([{ url: "http://a", wait: 1 }]).success).toBe(false)
})

test("two with one address are refused, however they are written", () => {
  const two = [inline("http://a:80/v1"), inline("vllm=http://a/")]
  expect(() => checkBackends(two)).toThrow("two backends have the address http://a; leave one of them out")
  checkBackends([inline("http://a:1"), inline("http://a:2")])
})
