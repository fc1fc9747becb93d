{{/*
A sidecar for a pod of another chart, which has this one among its dependencies with `gateway.enabled: false`:

  initContainers:
    {{- include "tunnel.sidecar" (dict "values" .Values.tunnel "args" (list "server" "--listen=:8443" ...)) | nindent 8 }}
  volumes:
    {{- include "tunnel.volumes" .Values.tunnel | nindent 8 }}

A sidecar is stopped after the other containers, so before a server sidecar it is they that have to wait until no more connections
come: give the service a `lifecycle: {preStop: {sleep: {seconds: 10}}}`, and add the seconds to terminationGracePeriodSeconds.
In a second container without restartPolicy, --shutdown-delay among the args does it.

The identity (--use-workload-api), the status port and the probes are added here. `awaits`: "target" lets the pod's containers start
only when the target answers too, as a job wants it; default "identity".
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
  {{- with .ports }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
startupProbe:
  {{- if eq (default "identity" .awaits) "target" }}
  httpGet:
    path: /_status
    port: status
  timeoutSeconds: 11
  {{- else }}
  tcpSocket:
    port: status
  {{- end }}
  periodSeconds: 2
  failureThreshold: 330
livenessProbe:
  tcpSocket:
    port: status
readinessProbe:
  httpGet:
    path: {{ default "/_status" .readinessPath }}
    port: status
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
  {{- toYaml $values.resources | nindent 2 }}
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
