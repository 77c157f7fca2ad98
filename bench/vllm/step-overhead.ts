/** What planning adds to a step of vLLM's scheduler, at 64, 256 and 1,024 running requests (step-overhead.py has the options):
 *
 *     node bench/vllm/step-overhead.ts --out bench/results/vllm/step-overhead.json
 *
 * In the environment that `npm run test:vllm` makes. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { environmentOf, VLLM_SETTINGS } from "../../plugins/vllm/environment.ts"

const { python } = environmentOf("0.32", (line) => console.error(line))
const { status } = spawnSync(
  python,
  [join(import.meta.dirname, "step-overhead.py"), ...process.argv.slice(2)],
  {
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...VLLM_SETTINGS, VLLM_LOGGING_LEVEL: "ERROR", ...process.env, SLOS_SERVE_NODE: process.execPath },
  },
)
process.exitCode = status ?? 1
