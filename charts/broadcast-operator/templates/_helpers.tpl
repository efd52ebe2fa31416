{{/* Name of the application, for labels. */}}
{{- define "broadcast-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the objects. 55 characters: the longest suffix is "-metrics", and names of Services have 63 at most. */}}
{{- define "broadcast-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 55 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 55 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Name of cluster-wide objects: two releases of one name in two namespaces must not share them. */}}
{{- define "broadcast-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "broadcast-operator.fullname" .) }}
{{- end }}

{{/* Labels by which Services and the Deployment find the Pod: they never change. */}}
{{- define "broadcast-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "broadcast-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* Labels of every object. */}}
{{- define "broadcast-operator.labels" -}}
{{ include "broadcast-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Name of the account that the operator runs as. */}}
{{- define "broadcast-operator.serviceAccountName" -}}
{{- $default := ternary (include "broadcast-operator.fullname" .) "default" .Values.serviceAccount.create }}
{{- default $default .Values.serviceAccount.name }}
{{- end }}

{{/* The image, by digest where one is given. */}}
{{- define "broadcast-operator.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}

{{/*
What the operator may do, one rule for each need. It needs no right on CustomResourceDefinitions: it waits for its own by
listing its kinds. It needs none on broadcasts/finalizers: the pages that a Broadcast owns do not block its deletion.
*/}}
{{- define "broadcast-operator.rules" -}}
# It follows all of its kinds. A restart reads its source, and a write reads its page, fresh from the API server.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcasts", "broadcastchannels", "broadcastbatches"]
  verbs: ["get", "list", "watch"]
# The annotation broadcast-operator.dev/restart makes it create the Broadcast that sends again to what failed.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcasts"]
  verbs: ["create"]
# Its finalizer keeps a deleted Broadcast until the requests in flight are recorded.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcasts"]
  verbs: ["patch"]
# spec.ttlSecondsAfterFinished.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcasts"]
  verbs: ["delete"]
# Counts, outcomes and conditions, written by PUT on the version that was read: never by patch, which knows no version.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcasts/status", "broadcastchannels/status"]
  verbs: ["update"]
# The log of who is sent to is written before the first message. Pages that a broken-off plan left are deleted; the pages
# of a deleted Broadcast are left to the garbage collector.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcastbatches"]
  verbs: ["create", "delete"]
# Claims, results and receipts.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcastbatches/status"]
  verbs: ["update"]
# Receipts that come one here and one there are stored together first: each journal is written once, found again by a list or by its
# name, and deleted when it was taken into the pages.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcastjournals"]
  verbs: ["get", "list", "create", "delete"]
# spec.campaignKey: a key is taken by creating its object, kept for a time after its Broadcast, then deleted. It is read by
# name; the list finds those whose time is over.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcastcampaigns"]
  verbs: ["get", "list", "create", "update", "delete"]
# Chats that opted out: one is written for each, read by name, updated when it says so anew and deleted when it opts in again;
# the list says who is skipped.
- apiGroups: ["broadcast-operator.dev"]
  resources: ["broadcastsuppressions"]
  verbs: ["get", "list", "create", "update", "delete"]
# Tokens of gateways, secrets that receipts are signed with, and audiences. It reads those that a channel or Broadcast
# names, so it needs neither list nor watch.
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["get"]
# Audiences, one by one as well.
- apiGroups: [""]
  resources: ["configmaps"]
  verbs: ["get"]
# It tells on each Broadcast what became of it; patch counts an event that repeats.
- apiGroups: ["events.k8s.io"]
  resources: ["events"]
  verbs: ["create", "patch"]
{{- end }}
