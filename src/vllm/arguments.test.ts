/** vLLM's arguments: what is handed on, what is taken out, what is refused before it is started. */
import { mkdtempSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { describe, expect, test } from "vitest"
import { readVllmArguments } from "./arguments.ts"

const folder = mkdtempSync(join(tmpdir(), "slos-serve-test-"))
function file(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}
const read = (line: string) => readVllmArguments(line.split(" ").filter((word) => word !== ""))

describe("what is read", () => {
  test("the model, with or without a flag; the rest as it is, in order", () => {
    expect(read("my/model --dtype float32 -tp 2 --lora-modules a=b c=d --enforce-eager")).toEqual({
      ...{ model: "my/model", namesModel: true, additional: {}, apiKey: null },
      args: "--dtype float32 -tp 2 --lora-modules a=b c=d --enforce-eager".split(" "),
    })
    expect(read("--model my/model").model).toBeNull()
    expect(read("--model my/model").args).toEqual(["--model", "my/model"])
    expect(read("--seed 1 my/model")).toMatchObject({ model: null, namesModel: false })
    expect(read("--seed 1 --model=my/model").namesModel).toBe(true)
    expect(read(`--config ${file("model.yaml", "model: m")}`).namesModel).toBe(true)
  })

  test("--additional-config is taken out, wherever and however it stands, and merged", () => {
    const two = readVllmArguments([
      ...["m", "--additional-config", '{"a": {"x": 1, "y": 1}}', "--seed", "5"],
      '--additional_config={"a": {"y": 2}, "slos_serve": {"deadline_ms": 3}}',
    ])
    expect(two.additional).toEqual({ a: { x: 1, y: 2 }, slos_serve: { deadline_ms: 3 } })
    expect(two.args).toEqual(["--seed", "5"])
    const config = file("more.yaml", "additional-config: {a: {z: 3, x: 0}}\nmax_model_len: 5\n")
    const three = readVllmArguments(["m", "--config", config, "--additional-config", '{"a": {"x": 1}}'])
    expect(three.additional).toEqual({ a: { z: 3, x: 1 } })
    expect(three.args).toEqual(["--config", config])
  })

  test("a file's --additional-config as text is read as after the flag", () => {
    const config = file("text.yaml", `additional-config: '{"a": {"z": 3}}'\n`)
    expect(read(`m --config ${config}`).additional).toEqual({ a: { z: 3 } })
  })

  test("the file of --config=FILE is handed on so that vLLM reads it", () => {
    const config = file("spelled.yaml", "api-key: k\n")
    expect(read(`m --seed 1 --config=${config} -O3`)).toMatchObject({
      ...{ apiKey: "k", args: ["--seed", "1", "--config", config, "-O3"] },
    })
  })

  test("the key that vLLM wants", () => {
    expect(read("m --api-key abc").apiKey).toBe("abc")
    expect(read(`m --config ${file("key.yaml", "api-key: [k1, k2]")}`).apiKey).toBe("k1")
  })
})

describe("what is refused, with a reason", () => {
  test.each([
    ["m --scheduler-cls mine.Scheduler", /--scheduler-cls cannot be given here: slos-serve vllm sets it/],
    ["m --scheduler_cls=mine.Scheduler", /--scheduler-cls/],
    ["m --port 9", /--port cannot be given here: vLLM gets a free port.*before the --/],
    ["m --host=0.0.0.0", /--host .*say --host before the --/],
    ["m --uds /x.sock", /--uds/],
    ["m --ssl-keyfile k", /without TLS/],
    ["m --kv-transfer-config {}", /a KV connector moves KV that the planner would not know of/],
    ["m --kv-transfer-config.kv_connector Nixl", /a KV connector/],
    ["m --scheduling-policy priority", /--scheduling-policy .*the planner orders requests/],
    ["m --runner pooling", /generate text/],
    ["m --convert embed", /generate text/],
    ["serve my/model", /leave out serve/],
    ["vllm serve my/model", /leave out vllm/],
    [
      `m --additional-config {"slos_serve":{"dead_line":3}}`,
      /slos_serve has no setting dead_line; settings are deadline_ms, /,
    ],
    [
      `m --additional-config {"slos_serve":{"socket":"x"}}`,
      /slos_serve\.socket cannot be given here: slos-serve vllm sets it/,
    ],
    [`m --additional-config {"slos_serve":3}`, /slos_serve is no JSON object/],
    ["m --no-enable-chunked-prefill", /cuts prompts into chunks/],
    ["m --long-prefill-token-threshold 100", /how long chunks are/],
    ["m --headless", /ranks on other machines/],
    ["m -dpa 10.0.0.1", /--data-parallel-address .*ranks on other machines/],
    ["m --data-parallel-backend ray", /ranks on other machines/],
    ["m -n 2", /--nnodes .*ranks on other machines/],
    ["m -n2", /--nnodes .*ranks on other machines/],
    ["m -r0", /--node-rank .*ranks on other machines/],
    ["m --kv-offloading-size 4", /a KV connector/],
    ["m --prefill_schedule_interval=4", /when prompts run/],
    [
      "m -dp 4 -dpl 2",
      /--data-parallel-size-local cannot be 2 here, other than --data-parallel-size \(4\): ranks/,
    ],
    ["m -dpl=2", /other than --data-parallel-size \(1\)/],
    [
      `m -dpl 2 --config ${file("dp.yaml", "data_parallel_size: 4")}`,
      /other than --data-parallel-size \(4\)/,
    ],
    ["m --headl", /--headl may be short for --headless: write it out/],
    ["m --scheduling_pol=priority", /short for --scheduling-policy/],
    ["m --kv-trans.kv_connector Nixl", /--kv-trans may be short for --kv-transfer-config/],
    ["m --api-k abc", /short for --api-key/],
    [
      `m --config ${file("chunked.yaml", "enable-chunked-prefill: false")}`,
      /enable-chunked-prefill in the file .*false/,
    ],
    [`m --config ${file("no.yaml", "enable_chunked_prefill: no")}`, /cuts prompts into chunks/],
    [`m --config ${file("nest.yaml", "kv-transfer-config: {kv_connector: X}")}`, /a KV connector/],
    [`m --config ${file("text.yml", "additional-config: nope")}`, /must be a JSON object, not "nope"/],
    ["m --additional-config.slos_serve.name a", /give it whole, as one JSON object/],
    ["m --additional-config nope", /--additional-config must be a JSON object, not "nope"/],
    ["m --additional-config [1]", /must be a JSON object/],
    ["m --additional-config", /must be a JSON object, not ""/],
    [`m --config ${file("port.yaml", "port: 80")}`, /port in the file after --config cannot be given here/],
    [`m --config ${file("list.yaml", "- a")}`, /list\.yaml: it is no map/],
    [`m --config ${join(folder, "none.yaml")}`, /none\.yaml: ENOENT/],
    [`m --config ${file("bad.yaml", "a: [")}`, /bad\.yaml: /],
  ])("%s", (line, message) => {
    expect(() => read(line)).toThrow(message)
    expect(() => read(line)).toThrow(expect.objectContaining({ name: "UserError" }))
  })

  test("not what is the same as without it", () => {
    for (const line of ["m --scheduling-policy fcfs", "m --runner generate", "m --nnodes 1", "m -dpb mp"])
      expect(read(line).args).toHaveLength(2)
    for (const off of ["false", "no", "off"])
      expect(read(`m --config ${file(`${off}.yaml`, `headless: ${off}`)}`).model).toBe("m")
    const [same, all] = [read("m -dp 2 -dpl 2"), read("m --prefill-schedule-interval 1")]
    expect([same.args, all.args].map(({ length }) => length)).toEqual([4, 2])
  })

  test("not what sizes an engine, or turns off what need not be on, however it is spelled", () => {
    const sizes = file(
      "sizes.yaml",
      "max-num-seqs: 8\nmax_num_batched_tokens: 512\nenable-prefix-caching: false\ndisable-sliding-window: true\n",
    )
    for (const line of [
      "m --max-num-seqs=8 --max_num_batched_tokens 512 --max-model-len=16k --num-gpu-blocks-override 60",
      "m --no-enable-prefix-caching --disable-sliding-window --enable-chunked-prefill --enable_prefix_caching",
      "m -O3 -O 2 -O=1 -cc.mode=0 -cc {} --compilation-config.cudagraph_mode NONE -tp=2 -pp 2 -dp 2",
      `m --config ${sizes}`,
    ])
      expect(read(line)).toMatchObject({ model: "m", args: line.split(" ").slice(1) })
  })

  test("not a value that looks like a refused name", () => {
    expect(read("port --served-model-name host").args).toEqual(["--served-model-name", "host"])
  })
})
