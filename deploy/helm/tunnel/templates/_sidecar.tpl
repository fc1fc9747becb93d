{{/*
A sidecar for a pod of another chart that depends on this one with `gateway.enabled: false`:

  initContainers:
    {{- include "tunnel.sidecar" (dict "values" .Values.tunnel "args" (list "server" "--listen=:8443" ...)) | nindent 8 }}
  volumes:
    {{- include "tunnel.volumes" .Values.tunnel | nindent 8 }}

A sidecar is stopped after the other containers. So behind a server sidecar, the service must wait until no new connections arrive: add
`lifecycle: {preStop: {sleep: {seconds: 10}}}` to it, and the seconds to terminationGracePeriodSeconds. In a second container
without restartPolicy, use --shutdown-delay in the args instead.

The template adds the identity (--use-workload-api), the status port, the health port and the probes. With `awaits`: "target", the containers of the pod
start only when the target answers too, for example for a job; default "identity".
*/}}
{{- define "tunnel.sidecar" -}}
- {{ include "tunnel.container" . | indent 2 | trim }}
  restartPolicy: Always
{{- end }}

{{- define "tunnel.volumes" -}}
- name: spiffe-workload-api
  csi:
    driver: {{ .workloadApi.driver }}
    readOnly: true
{{- end }}

{{- define "tunnel.workloadApi" -}}
unix://{{ .mountPath }}/{{ .socket }}
{{- end }}

{{- define "tunnel.image" -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end }}

{{- define "tunnel.container" -}}
{{- $values := .values -}}
name: tunnel
image: {{ include "tunnel.image" $values.image | quote }}
imagePullPolicy: {{ $values.image.pullPolicy }}
args:
  {{- toYaml .args | nindent 2 }}
  {{- if not .configMap }}
  - --use-workload-api
  - --health=:6061
  - --status=http://:6060
  {{- end }}
{{- if not .configMap }}
env:
  - name: SPIFFE_ENDPOINT_SOCKET
    value: {{ include "tunnel.workloadApi" $values.workloadApi }}
{{- end }}
ports:
  - name: status
    containerPort: 6060
  - name: health
    containerPort: 6061
  {{- with .ports }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  httpGet:
    path: {{ ternary "/readyz?target" "/readyz" (eq (default "identity" .awaits) "target") }}
    port: health
  timeoutSeconds: 11
  periodSeconds: 2
  failureThreshold: 330
livenessProbe:
  httpGet:
    path: /livez
    port: health
  timeoutSeconds: 5
readinessProbe:
  httpGet:
    path: {{ default "/readyz?target" .readinessPath }}
    port: health
  periodSeconds: 5
  timeoutSeconds: 11
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  seccompProfile:
    type: RuntimeDefault
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml (default $values.resources .resources) | nindent 2 }}
volumeMounts:
  - name: spiffe-workload-api
    mountPath: {{ $values.workloadApi.mountPath }}
    readOnly: true
  {{- if .configMap }}
  - name: tunnel
    mountPath: /etc/tunnel
    readOnly: true
  {{- end }}
{{- end }}
