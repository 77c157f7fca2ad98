/** What can stand before engines: our gateway, nginx and vllm-router; how each is found and started. Nothing is installed
 * here: what is not on the machine is left out, and it is said how it comes there. */
import { execFileSync } from "node:child_process"
import { existsSync, mkdirSync, writeFileSync } from "node:fs"
import { join, resolve } from "node:path"
import { cacheFolder } from "../../../src/models/cache.ts"
import type { System } from "../../real/systems.ts"

/** Where `get-rivals.sh` puts them. */
const CACHE = join(cacheFolder(), "rivals")

export interface FrontEnd {
  name: string
  kind: System["kind"]
  /** It may stand still while others are measured. Ours watches its engines and learns their speed: a pause would look to
   * it as if they had stood still, and its idle looks at them cost next to nothing. */
  pauses: boolean
  /** null: it is not on this machine. */
  command(port: number, backends: readonly string[], folder: string): string[] | null
  missing: string
}

const MISSING = "bench/get-rivals.sh brings it"

/** `program`: its main.ts, of this checkout or another; `processes`: of the gateway. */
export function gateway(
  kind: "vllm" | "llama-server" | "openai",
  program = "src/cli/main.ts",
  processes = 1,
): FrontEnd {
  const several = processes === 1 ? [] : ["--gateways", String(processes)]
  return {
    ...{ kind: "slos-serve", pauses: false, missing: "" },
    name: ["slos-serve", ...several].join(" "),
    command: (port, backends) => [
      ...[process.execPath, program, "serve", "--port", String(port), "--log-level", "warn", ...several],
      ...backends.flatMap((url) => ["--backend", `${kind}=${url}`]),
    ],
  }
}

export const NGINX: FrontEnd = {
  ...{ name: "nginx", kind: "openai", pauses: true, missing: `there is no nginx; ${MISSING}` },
  command(port, backends, folder) {
    const program = found("nginx", process.env.NGINX, join(CACHE, "nginx/usr/sbin/nginx"))
    if (program === null) return null
    const prefix = resolve(folder, `nginx-${port}`)
    mkdirSync(prefix, { recursive: true })
    writeFileSync(join(prefix, "nginx.conf"), nginxConfig(port, backends))
    return [program, "-p", prefix, "-c", join(prefix, "nginx.conf"), "-e", join(prefix, "error.log")]
  },
}

/** As its manual has it for server-sent events; with kept connections, which is what it is fast with. */
function nginxConfig(port: number, backends: readonly string[]): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
  return `daemon off; worker_processes 1; pid nginx.pid;
events { worker_connections 8192; }
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${name}_temp;`).join(" ")}
  keepalive_requests 1000000;
  upstream engines {
    least_conn;
    ${backends.map((url) => `server ${new URL(url).host} max_fails=0;`).join("\n    ")}
    keepalive 2048;
    keepalive_requests 1000000;
  }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    client_max_body_size 64m;
    client_body_buffer_size 1m;
    location / {
      proxy_pass http://engines;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
      proxy_read_timeout 600s;
    }
  }
}
`
}

export function vllmRouter(policy: string, name = "vllm-router"): FrontEnd {
  return {
    ...{ name, kind: "openai", pauses: true, missing: `there is no vllm-router; ${MISSING}` },
    command(port, backends) {
      const program = found(
        "vllm-router",
        process.env.VLLM_ROUTER,
        join(CACHE, "vllm-router/bin/vllm-router"),
      )
      if (program === null) return null
      return [
        ...[program, "--host", "127.0.0.1", "--port", String(port), "--policy", policy],
        // Its default, 256 requests, would refuse most of a thousand streams.
        ...[
          "--prometheus-port",
          String(port + 1000),
          "--log-level",
          "warning",
          "--max-concurrent-requests",
          "65536",
        ],
        ...["--worker-urls", ...backends],
      ]
    },
  }
}

/** The one that is named, the one of the cache, or the machine's own. */
function found(program: string, named: string | undefined, cached: string): string | null {
  if (named !== undefined && named !== "") return named
  if (existsSync(cached)) return cached
  try {
    return execFileSync("which", [program], { encoding: "utf8" }).trim()
  } catch {
    return null
  }
}
