/** What planning adds to a step of vLLM's scheduler, at 64, 256 and 1,024 running requests (step-overhead.py has the options); with
 * --parts, in which of the plug-in's functions (step-parts.py); with --against, beside another checkout's plug-in (step-against.py); with
 * --real, the steps per second of a real engine with a tiny model (steps-per-second.py):
 *
 *     node bench/vllm/step-overhead.ts --out bench/results/vllm/step-overhead.json
 *     node bench/vllm/step-overhead.ts --real --out bench/results/vllm/steps-per-second.json
 *     node bench/vllm/step-overhead.ts --parts --running 64 --out bench/results/vllm/step-parts.json
 *     node bench/vllm/step-overhead.ts --against OTHER/plugins/vllm/slos_serve_vllm --running 64 --out FILE
 *
 * The first two go on where an earlier run was interrupted. In the environment that `npm run test:vllm` makes, or with the Python of
 * --python. */
import { spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { environmentOf, VLLM_SETTINGS } from "../../plugins/vllm/environment.ts"

const args = process.argv.slice(2)
const at = args.indexOf("--python")
const python =
  at < 0 ? environmentOf("0.32", (line) => console.error(line)).python : (args.splice(at, 2)[1] ?? "python3")

function taken(option: string): boolean {
  const place = args.indexOf(option)
  if (place >= 0) args.splice(place, 1)
  return place >= 0
}

const isReal = taken("--real")
const beside = args.includes("--against") ? "step-against.py" : "step-overhead.py"
const program = taken("--parts") ? "step-parts.py" : beside

function run(program: string, ...rest: string[]): number {
  const { status } = spawnSync(python, [join(import.meta.dirname, program), ...rest], {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...VLLM_SETTINGS, VLLM_LOGGING_LEVEL: "ERROR", ...process.env, SLOS_SERVE_NODE: process.execPath },
  })
  return status ?? 1
}

function runReal(): number {
  const folder = mkdtempSync(join(tmpdir(), "steps-"))
  try {
    const made = run("make-model.py", "tiny", folder)
    return made === 0 ? run("steps-per-second.py", "--model", folder, ...args) : made
  } finally {
    rmSync(folder, { recursive: true })
  }
}

process.exitCode = isReal ? runReal() : run(program, ...args)
