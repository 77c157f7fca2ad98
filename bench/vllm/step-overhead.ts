/** What planning adds to a step of vLLM's scheduler, at 64, 256 and 1,024 running requests (step-overhead.py has the options):
 *
 *     node bench/vllm/step-overhead.ts --out bench/results/vllm/step-overhead.json
 *
 * In the environment that `npm run test:vllm` makes, or with the Python of --python. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { environmentOf, VLLM_SETTINGS } from "../../plugins/vllm/environment.ts"

const args = process.argv.slice(2)
const at = args.indexOf("--python")
const python =
  at < 0 ? environmentOf("0.32", (line) => console.error(line)).python : (args.splice(at, 2)[1] ?? "python3")
const { status } = spawnSync(python, [join(import.meta.dirname, "step-overhead.py"), ...args], {
  stdio: ["ignore", "inherit", "inherit"],
  env: { ...VLLM_SETTINGS, VLLM_LOGGING_LEVEL: "ERROR", ...process.env, SLOS_SERVE_NODE: process.execPath },
})
process.exitCode = status ?? 1
