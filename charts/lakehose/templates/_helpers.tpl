{{/* Labels of everything the chart itself makes. Takes the root and a component's name. */}}
{{- define "lakehose.labels" -}}
{{ include "lakehose.selector" . }}
app.kubernetes.io/part-of: lakehose
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels that find a component's pods, and never change. */}}
{{- define "lakehose.selector" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{/* Nothing a server of ours does needs root, or a capability. */}}
{{- define "lakehose.podSecurity" -}}
runAsNonRoot: true
runAsUser: 185
runAsGroup: 185
fsGroup: 185
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "lakehose.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Namespaces of the lake's jobs, as JSON: a list of names in `names`. */}}
{{- define "lakehose.namespaces" -}}
{{- $names := list }}
{{- range .Values.lake.objects }}
{{- if eq .kind "Namespace" }}{{ $names = append $names .metadata.name }}{{ end }}
{{- end }}
{{- dict "names" $names | toJson }}
{{- end }}

{{/* The same as a regular expression of Prometheus. */}}
{{- define "lakehose.namespaceExpression" -}}
{{- (include "lakehose.namespaces" . | fromJson).names | join "|" }}
{{- end }}
