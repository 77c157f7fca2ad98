{{- define "slos-serve.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Labels of everything; call with (dict "root" $ "part" "gateway"). */}}
{{- define "slos-serve.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "slos-serve.selector" . }}
{{- end -}}

{{- define "slos-serve.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "slos-serve.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "slos-serve.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- .Values.serviceAccount.name | default (include "slos-serve.fullname" .) -}}
{{- else -}}
{{- .Values.serviceAccount.name | default "default" -}}
{{- end -}}
{{- end -}}

{{/* host:port of the chart's own engines: a headless service, whose every address is an engine. */}}
{{- define "slos-serve.vllmAddress" -}}
{{ include "slos-serve.fullname" . }}-vllm.{{ .Release.Namespace }}.svc:{{ .Values.vllm.port }}
{{- end -}}

{{/* Of our own containers: nothing to write to but a cache and /tmp, no rights. */}}
{{- define "slos-serve.confined" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "slos-serve.unprivileged" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{/* A change of the config restarts the pods that read it. */}}
{{- define "slos-serve.configSum" -}}
checksum/config: {{ include (print $.Template.BasePath "/configmap.yaml") . | sha256sum }}
{{- end -}}

{{/* Arguments of `serve` for the backends, the chart's own engines first. */}}
{{- define "slos-serve.backendArgs" -}}
{{- $backends := .Values.backends -}}
{{- if .Values.vllm.enabled -}}
{{- $own := dict "url" (printf "http://%s" (include "slos-serve.vllmAddress" .)) "kind" "vllm" "priority" (has "--scheduling-policy=priority" .Values.vllm.args) -}}
{{- $backends = prepend $backends $own -}}
{{- end -}}
{{- if not $backends -}}
{{- fail "the gateway has no engine to stand in front of: set vllm.enabled, or name some in backends" -}}
{{- end -}}
{{- $seen := dict -}}
{{- range $backends }}
{{- $address := trimSuffix "/" .url -}}
{{- if hasKey $seen $address -}}
{{- fail (printf "backends has %s twice: a gateway does not start with two backends of one address" $address) -}}
{{- end -}}
{{- $_ := set $seen $address true }}
{{- $text := .url -}}
{{- if .kind }}{{ $text = printf "%s=%s" .kind .url }}{{ end -}}
{{- if .weight }}{{ $text = printf "%s,weight=%v" $text .weight }}{{ end -}}
{{- range $theirs, $its := .models }}{{ $text = printf "%s,model=%s:%s" $text $theirs $its }}{{ end -}}
{{- if .key_env }}{{ $text = printf "%s,key_env=%s" $text .key_env }}{{ end -}}
{{- if .priority }}{{ $text = printf "%s,priority" $text }}{{ end }}
- --backend
- {{ $text | quote }}
{{- end -}}
{{- end -}}

{{/* Prometheus, wherever it is. */}}
{{- define "slos-serve.prometheus" -}}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      app.kubernetes.io/name: prometheus
{{- end -}}

{{/* Of the gateway's container: so much for each process, and what `gateway.resources` names in its place; null: none. */}}
{{- define "slos-serve.gatewayResources" -}}
{{- $processes := int .processes -}}
{{- $own := dict "requests" (dict "cpu" (toString $processes) "memory" (printf "%dMi" (mul 512 $processes))) "limits" (dict "memory" (printf "%dGi" (mul 2 $processes))) -}}
{{- range $part, $named := .resources -}}
{{- if and (kindIs "map" $named) (hasKey $own $part) -}}
{{- range $what, $much := $named -}}
{{- if kindIs "invalid" $much -}}{{- $_ := unset (get $own $part) $what -}}{{- else -}}{{- $_ := set (get $own $part) $what $much -}}{{- end -}}
{{- end -}}
{{- else if kindIs "invalid" $named -}}{{- $_ := unset $own $part -}}
{{- else -}}{{- $_ := set $own $part $named -}}
{{- end -}}
{{- end -}}
{{- toYaml $own -}}
{{- end -}}

{{/* Refuses values that Kubernetes takes and that cannot be meant. */}}
{{- define "slos-serve.checkGateway" -}}
{{- range .Values.gateway.args -}}
{{- if or (eq . "--gateways") (hasPrefix "--gateways=" .) -}}
{{- fail "gateway.args has --gateways: say gateway.processes, by which the pod's CPU and memory go too" -}}
{{- end -}}
{{- end -}}
{{- if hasKey (.Values.config.server | default dict) "gateways" -}}
{{- fail "config.server.gateways: say gateway.processes, by which the pod's CPU and memory go too" -}}
{{- end -}}
{{- if and (include "slos-serve.peers" .) (eq (int .Values.gateway.port) (int .Values.gateway.peers.port)) -}}
{{- fail (printf "gateway.port and gateway.peers.port are both %d" (int .Values.gateway.port)) -}}
{{- end -}}
{{- $least := .Values.gateway.replicas -}}
{{- with .Values.gateway.autoscaling -}}
{{- if .enabled -}}
{{- $least = .minReplicas -}}
{{- include "slos-serve.checkRange" (dict "where" "gateway.autoscaling" "range" .) -}}
{{- end -}}
{{- end -}}
{{- with .Values.gateway.podDisruptionBudget -}}
{{- if and .enabled (not (kindIs "string" .minAvailable)) (gt (int $least) 0) (ge (int .minAvailable) (int $least)) -}}
{{- fail (printf "gateway.podDisruptionBudget.minAvailable is %d of %d gateways: no node under one could be drained; have more gateways, or set podDisruptionBudget.enabled to false" (int .minAvailable) (int $least)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "slos-serve.checkRange" -}}
{{- if gt (int .range.minReplicas) (int .range.maxReplicas) -}}
{{- fail (printf "%s: minReplicas is %d, and maxReplicas %d" .where (int .range.minReplicas) (int .range.maxReplicas)) -}}
{{- end -}}
{{- end -}}

{{/* "true" where gateways tell each other; else nothing. */}}
{{- define "slos-serve.peers" -}}
{{- with .Values.gateway -}}
{{- $several := or .autoscaling.enabled (gt (int .replicas) 1) -}}
{{- if and .enabled (ternary .peers.enabled $several (kindIs "bool" .peers.enabled)) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "slos-serve.peerSecret" -}}
{{ .Values.gateway.peers.existingSecret | default (printf "%s-peers" (include "slos-serve.fullname" .)) }}
{{- end -}}
