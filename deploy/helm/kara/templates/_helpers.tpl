{{- define "kara.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "kara.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "kara.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "kara.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "kara.selectorLabels" -}}
app.kubernetes.io/name: {{ include "kara.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "kara.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "kara.selectorLabels" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "kara.image" -}}
{{- $registry := .Values.global.imageRegistry | default .Values.image.registry }}
{{- $tag := .Values.image.tag | default .Chart.AppVersion }}
{{- if $registry }}{{ printf "%s/%s:%s" $registry .Values.image.repository $tag }}
{{- else }}{{ printf "%s:%s" .Values.image.repository $tag }}
{{- end }}
{{- end }}

{{- define "kara.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "kara.fullname" .) }}
{{- else }}{{ .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "kara.passwordSecret" -}}
{{- .Values.auth.usersExistingSecret | default (printf "%s-auth" (include "kara.fullname" .)) }}
{{- end }}

{{- define "kara.passwordKey" -}}
{{- .Values.auth.aclUsers.default.passwordKey | default "default" }}
{{- end }}

{{/* Users but default: their arguments and where their passwords are; passwords reach the server by variables. */}}
{{- define "kara.users" -}}
{{- $args := list }}
{{- $secrets := dict }}
{{- $at := 0 }}
{{- if .Values.auth.enabled }}
{{- range $name, $user := .Values.auth.aclUsers }}
{{- if ne $name "default" }}
{{- $at = add1 $at }}
{{- $variable := printf "VALKEY_USER_%d_PASSWORD" $at }}
{{- $args = concat $args (list "--user" $name "on" (printf ">$(%s)" $variable)) (regexSplit "\\s+" (trim $user.permissions) -1) }}
{{- $secrets = set $secrets $variable (dict "secret" (include "kara.passwordSecret" $) "key" ($user.passwordKey | default $name)) }}
{{- end }}
{{- end }}
{{- end }}
{{- dict "args" $args "secrets" $secrets | toJson }}
{{- end }}

{{/* What would start and then not do what was asked for. */}}
{{- define "kara.check" -}}
{{- if .Values.auth.enabled }}
{{- range $name, $user := .Values.auth.aclUsers }}
{{- if ne $name "default" }}
{{- if not $user.permissions }}{{ fail (printf "auth.aclUsers.%s needs permissions" $name) }}{{ end }}
{{- if regexMatch "\\s" $name }}{{ fail (printf "auth.aclUsers: the name %q holds a space" $name) }}{{ end }}
{{- if not (or $.Values.auth.usersExistingSecret $user.password) }}{{ fail (printf "auth.aclUsers.%s needs a password, or auth.usersExistingSecret" $name) }}{{ end }}
{{- end }}
{{- end }}
{{- if not (or .Values.auth.usersExistingSecret .Values.auth.aclUsers.default.password) }}
{{- if not .Values.disasterRecovery.enabled }}
{{- fail "auth.enabled needs auth.usersExistingSecret or auth.aclUsers.default.password" }}
{{- end }}
{{- end }}
{{- end }}
{{- if .Values.disasterRecovery.enabled }}
{{- if not .Values.disasterRecovery.host }}{{ fail "disasterRecovery.host is the primary's address" }}{{ end }}
{{- if not .Values.disasterRecovery.existingSecret }}{{ fail "disasterRecovery.existingSecret holds the primary's password" }}{{ end }}
{{- end }}
{{- if and .Values.replica.enabled (not .Values.replica.persistence.size) }}
{{- fail "replica.enabled needs replica.persistence.size" }}
{{- end }}
{{- end }}

{{- define "kara.probe" -}}
{{- $probe := .probe }}
{{- if $probe.customProbe }}
{{- toYaml $probe.customProbe }}
{{- else }}
{{- if .metrics }}
httpGet:
  path: {{ .path }}
  port: metrics
{{- else }}
exec:
  command: ["kara-health", "--metrics-port", "0"]
{{- end }}
initialDelaySeconds: {{ $probe.initialDelaySeconds }}
periodSeconds: {{ $probe.periodSeconds }}
timeoutSeconds: {{ $probe.timeoutSeconds }}
failureThreshold: {{ $probe.failureThreshold }}
{{- with $probe.successThreshold }}
successThreshold: {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{/* A StatefulSet: root, component, replicas, args (a list), secrets (name of the variable to secret and key), storage. */}}
{{- define "kara.statefulset" -}}
{{- $root := .root }}
{{- $values := $root.Values }}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: {{ .name }}
  labels:
    {{- include "kara.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- with $values.workloadAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceName: {{ include "kara.fullname" $root }}-headless
  replicas: {{ .replicas }}
  podManagementPolicy: Parallel
  updateStrategy:
    type: RollingUpdate
  selector:
    matchLabels:
      {{- include "kara.selectorLabels" $root | nindent 6 }}
      app.kubernetes.io/component: {{ .component }}
  template:
    metadata:
      labels:
        {{- include "kara.selectorLabels" $root | nindent 8 }}
        app.kubernetes.io/component: {{ .component }}
        {{- with $values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or $values.podAnnotations $values.valkeyConfig }}
      annotations:
        {{- with $values.valkeyConfig }}
        checksum/config: {{ . | sha256sum }}
        {{- end }}
        {{- with $values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "kara.serviceAccountName" $root }}
      automountServiceAccountToken: {{ $values.serviceAccount.automount }}
      terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
      {{- with concat $values.global.imagePullSecrets $values.imagePullSecrets }}
      imagePullSecrets:
        {{- range . }}
        - name: {{ . }}
        {{- end }}
      {{- end }}
      {{- with $values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      {{- with $values.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- with $values.podSecurityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      containers:
        - name: kara
          image: {{ include "kara.image" $root | quote }}
          imagePullPolicy: {{ $values.image.pullPolicy }}
          {{- with $values.securityContext }}
          securityContext:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          {{- with .args }}
          args:
            {{- range . }}
            - {{ . | quote }}
            {{- end }}
          {{- end }}
          env:
            # The image's variable, with the ports of these values; arguments and valkey.conf override it.
            - name: KARA_DEFAULTS
              value: {{ printf "protected-mode no; metrics-port %d" (ternary (int $values.metrics.exporter.port) 0 $values.metrics.enabled) | quote }}
            {{- range $variable, $from := .secrets }}
            - name: {{ $variable }}
              valueFrom:
                secretKeyRef:
                  name: {{ $from.secret }}
                  key: {{ $from.key }}
            {{- end }}
            {{- range $name, $value := $values.env }}
            - name: {{ $name }}
              value: {{ $value | quote }}
            {{- end }}
          ports:
            - name: valkey
              containerPort: 6379
            {{- if $values.metrics.enabled }}
            - name: metrics
              containerPort: {{ $values.metrics.exporter.port }}
            {{- end }}
          {{- range $kind, $path := dict "startupProbe" "/healthz" "livenessProbe" "/healthz" "readinessProbe" "/readyz" }}
          {{- $probe := index $values $kind }}
          {{- if $probe.enabled }}
          {{ $kind }}:
            {{- include "kara.probe" (dict "probe" $probe "path" $path "metrics" $values.metrics.enabled) | trim | nindent 12 }}
          {{- end }}
          {{- end }}
          {{- with $values.resources }}
          resources:
            {{- toYaml . | nindent 12 }}
          {{- end }}
          volumeMounts:
            - name: data
              mountPath: /data
            {{- if $values.valkeyConfig }}
            - name: config
              mountPath: /etc/valkey
              readOnly: true
            {{- end }}
            {{- with $values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      {{- if or (not .storage.size) $values.valkeyConfig $values.extraVolumes }}
      volumes:
        {{- if not .storage.size }}
        - name: data
          emptyDir: {}
        {{- end }}
        {{- if $values.valkeyConfig }}
        - name: config
          configMap:
            name: {{ include "kara.fullname" $root }}
        {{- end }}
        {{- with $values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with $values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $values.topologySpreadConstraints }}
      topologySpreadConstraints:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  {{- if .storage.size }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes:
          {{- toYaml .storage.accessModes | nindent 10 }}
        {{- with .storage.class }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .storage.size }}
  {{- end }}
{{- end }}
