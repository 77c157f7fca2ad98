/** All that is to be measured of vLLM on a GPU, as one command that ends within its time and goes on where it stopped:
 *
 *     node bench/vllm/gpu.ts --python /path/to/vllm/bin/python --time-budget-min 9
 *     node bench/vllm/gpu.ts --rehearse          # the same on a processor: a tiny model and short windows
 *
 * It needs a Python with vLLM (0.32 or 0.33) that finds the GPU, Node 24 and this repository after `npm install`; no network and no
 * weights: the model has the shape of Llama 3.1 8B and random numbers. What it writes is under --out:
 * machine.json, step-overhead.json, attain.jsonl with its tables and charts, and the same with asynchronous scheduling under async/. */
import { spawnSync } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { parseArgs } from "node:util"

const HERE = import.meta.dirname
const { values: options } = parseArgs({
  options: {
    python: { type: "string", default: "python3" },
    out: { type: "string", default: join(HERE, "../results/vllm/gpu") },
    model: { type: "string" },
    "time-budget-min": { type: "string", default: "9" },
    rehearse: { type: "boolean", default: false },
  },
})
const { python, out, rehearse } = options
const model = options.model ?? (rehearse ? "tiny" : "llama8b")
const endsAtMs = performance.now() + Number(options["time-budget-min"]) * 60_000
const leftMin = () => (endsAtMs - performance.now()) / 60_000

const WINDOWS = rehearse
  ? "--device cpu --rates 0.5 --seconds 6 --budgets 256 --train-seconds 3"
  : "--device gpu --rates 0.6,0.8,1 --seconds 20 --budgets 2048,8192 --train-seconds 10"
const OVERHEAD = rehearse
  ? "--running 64 --steps 20 --rounds 1 --device-ms 15"
  : "--running 64,256,1024 --steps 200 --rounds 2 --device-ms 8,8,8"

mkdirSync(out, { recursive: true })
describeMachine()
attain(out, Math.max(1, leftMin() * 0.5), [])
if (!existsSync(join(out, "step-overhead.json")))
  run(
    [join(HERE, "step-overhead.ts"), "--python", python, ...OVERHEAD.split(" ")],
    join(out, "step-overhead.json"),
  )
// vLLM's processor build schedules synchronously only.
if (!rehearse) attain(join(out, "async"), Math.max(1, leftMin()), ["--asynchronous"])

/** What was measured where; without a vLLM, or a GPU, it ends here and says so. */
function describeMachine(): void {
  const asked =
    "import json, torch, vllm; c = torch.cuda; print(json.dumps({'vllm': vllm.__version__, 'torch': torch.__version__, " +
    "'gpu': c.get_device_name() if c.is_available() else None, 'gib': round(c.mem_get_info()[1] / 2**30) if c.is_available() else None}))"
  const { status, stdout, stderr } = spawnSync(python, ["-c", asked], { encoding: "utf8" })
  const line = stdout?.trim().split("\n").at(-1) ?? ""
  if (status !== 0)
    fail(`${python} has no vLLM that can be imported: ${stderr?.trim().split("\n").at(-1) ?? ""}`)
  if ((JSON.parse(line) as { gpu: string | null }).gpu === null && !rehearse)
    fail("vLLM's torch finds no GPU here; --rehearse runs the same on a processor")
  writeFileSync(join(out, "machine.json"), `${line}\n`)
  console.log(line)
}

function attain(folder: string, minutes: number, more: readonly string[]): void {
  mkdirSync(folder, { recursive: true })
  const args = [
    "--models",
    model,
    "--python",
    python,
    "--out",
    folder,
    "--time-budget-min",
    minutes.toFixed(2),
  ]
  run([join(HERE, "attain.ts"), ...args, ...WINDOWS.split(" "), ...more], null)
}

/** One part that fails leaves the others: what it said is in the output. */
function run(args: readonly string[], resultFile: string | null): void {
  const passed = resultFile === null ? args : [...args, "--out", resultFile]
  const { status } = spawnSync(process.execPath, passed, { stdio: "inherit" })
  if (status === 0) return
  console.error(`error: ${args[0]} ended with ${status}`)
  process.exitCode = 1
}

function fail(why: string): never {
  console.error(`error: ${why}`)
  process.exit(2)
}
