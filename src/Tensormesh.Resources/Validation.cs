using k8s.Models;

namespace Tensormesh.Resources;

/// <summary>One thing wrong with a spec: where, and what to do.</summary>
/// <param name="Field">Path such as <c>spec.gpu.count</c>.</param>
public sealed record FieldError(string Field, string Message)
{
    public override string ToString() => $"{Field}: {Message}";
}

/// <summary>The rules of each kind, pure; used by the webhook and by the reconciler. The CRDs state the same as schema and CEL.</summary>
/// <remarks>An old API server runs no CEL, and a webhook may be down: what is not refused here is not refused everywhere.</remarks>
public static class Validation
{
    public static IReadOnlyList<FieldError> Validate(GpuDeployment deployment)
    {
        var spec = deployment.Spec ?? new();
        return
        [
            .. NameFitsALabel(deployment.Metadata, "a GpuDeployment's name becomes a label and the name of a Deployment"),
            .. Scale(spec),
            .. Gpu(spec.Gpu ?? new()),
            .. Template(spec.Template),
            .. GpuContainer(spec),
            .. Amount("spec.budget.maxHourlyRate", spec.Budget?.MaxHourlyRate, above: 0),
            .. Amount("spec.budget.maxTotalCost", spec.Budget?.MaxTotalCost, above: 0),
        ];
    }

    /// <summary>Rules about a change: what may not change, and all of <see cref="Validate(GpuDeployment)"/>.</summary>
    public static IReadOnlyList<FieldError> ValidateUpdate(GpuDeployment before, GpuDeployment after)
    {
        var (was, becomes) = (before.Spec?.Gpu?.Product, after.Spec?.Gpu?.Product);
        return was is null || was == becomes
            ? Validate(after)
            : [new("spec.gpu.product", Messages.ProductIsImmutable), .. Validate(after)];
    }

    public static IReadOnlyList<FieldError> Validate(BillingAccount account)
    {
        var spec = account.Spec ?? new();
        return
        [
            .. NameFitsALabel(account.Metadata, "namespaces name their account in a label"),
            .. DisplayName(spec.DisplayName),
            .. Amount("spec.lowBalanceAlert", spec.LowBalanceAlert),
            .. CardGracePeriod(spec.CardGracePeriod),
            .. TimeZone(spec.TimeZone),
        ];
    }

    public static IReadOnlyList<FieldError> Validate(PriceBook book)
    {
        var gpus = book.Spec?.Gpus ?? [];
        var models = book.Spec?.Serverless ?? [];
        return
        [
            .. AtMost("spec.gpus", gpus.Count, Formats.MaxGpuPrices),
            .. gpus.SelectMany((price, i) => GpuPrice($"spec.gpus[{i}]", price)),
            .. Twice("spec.gpus", "product", [.. gpus.Select(price => price.Product)]),
            .. AtMost("spec.serverless", models.Count, Formats.MaxServerlessPrices),
            .. models.SelectMany((price, i) => ServerlessPrice($"spec.serverless[{i}]", price)),
            .. Twice("spec.serverless", "model", [.. models.Select(price => price.Model)]),
        ];
    }

    private static IEnumerable<FieldError> NameFitsALabel(V1ObjectMeta? metadata, string because)
    {
        if (metadata?.Name is { Length: > Formats.LabelValueMaxLength } name)
        {
            yield return new("metadata.name",
                $"is {name.Length} characters long: use at most {Formats.LabelValueMaxLength}, because {because}");
        }
    }

    private static IEnumerable<FieldError> Scale(GpuDeploymentSpec spec)
    {
        var replicas = spec.Replicas ?? Defaulting.Replicas;
        var count = spec.Gpu?.Count ?? Defaulting.GpuCount;
        if (replicas is < 0 or > Formats.MaxReplicas)
        {
            yield return new("spec.replicas", $"must be 0 to {Formats.MaxReplicas}, not {replicas}");
        }
        else if (count is >= 1 and <= Formats.MaxGpusPerPod && replicas * count > Formats.MaxGpusPerDeployment)
        {
            yield return new("spec.replicas",
                $"{replicas} replicas of {count} GPUs are {replicas * count} GPUs, and {Messages.TooManyGpus}");
        }
    }

    private static IEnumerable<FieldError> Gpu(GpuRequirement gpu)
    {
        if (gpu.Count is < 1 or > Formats.MaxGpusPerPod)
        {
            yield return new("spec.gpu.count",
                $"must be 1 to {Formats.MaxGpusPerPod}, not {gpu.Count}: it is the GPUs of one pod, and spec.replicas adds pods");
        }

        if (gpu.Product is { } product && !IsProduct(product))
        {
            yield return new("spec.gpu.product", NotAProduct(product));
        }

        if (gpu.MinMemory is { } memory && !(Quantities.TryMemoryMiB(memory, out var mebibytes) && mebibytes > 0))
        {
            yield return new("spec.gpu.minMemory", $"\"{memory}\" {Messages.NoMemory}");
        }

        if (gpu.MinComputeCapability is { } capability && !Quantities.TryComputeCapability(capability, out _))
        {
            yield return new("spec.gpu.minComputeCapability",
                $"\"{capability}\" is not a compute capability: write major.minor in quotes, like \"8.9\"");
        }
    }

    private static IEnumerable<FieldError> Template(V1PodTemplateSpec? template)
    {
        if (template is UnreadablePodTemplate unreadable)
        {
            return [new("spec.template", $"is not a pod template: {unreadable.Reason}")];
        }

        if (template?.Spec is not { Containers.Count: > 0 } pod)
        {
            return [new("spec.template.spec.containers", "must have at least one container: it gets the GPUs")];
        }

        return
        [
            .. Containers("containers", pod.Containers),
            .. Containers("initContainers", pod.InitContainers ?? []),
            .. RestartPolicy(pod.RestartPolicy),
        ];
    }

    private static IEnumerable<FieldError> Containers(string list, IList<V1Container> containers)
    {
        if (containers.Count > Formats.MaxContainers)
        {
            yield return new($"spec.template.spec.{list}", $"has {containers.Count} entries: use at most {Formats.MaxContainers}");
        }

        for (var i = 0; i < containers.Count; i++)
        {
            var field = $"spec.template.spec.{list}[{i}]";
            if (!Formats.Matches(containers[i]?.Name, Formats.ContainerName, Formats.ContainerNameMaxLength))
            {
                yield return new($"{field}.name",
                    $"\"{containers[i]?.Name}\" is not a container's name: use lower-case letters, digits and -, like trainer");
            }
            else if (containers.Take(i).Any(earlier => earlier?.Name == containers[i].Name))
            {
                yield return new($"{field}.name", $"\"{containers[i].Name}\" is the name of an earlier container: give each its own");
            }

            // Any resource of NVIDIA's, not only whole GPUs: a MIG slice or a shared GPU would run without being paid for.
            foreach (var resource in Resources(containers[i])
                .Where(name => name.StartsWith(Formats.GpuResourcePrefix, StringComparison.Ordinal)))
            {
                yield return new($"{field}.resources", $"must not ask for {resource}: set spec.gpu.count instead");
            }
        }
    }

    private static IEnumerable<string> Resources(V1Container? container) =>
        (container?.Resources?.Limits?.Keys ?? []).Union(container?.Resources?.Requests?.Keys ?? []);

    private static IEnumerable<FieldError> RestartPolicy(string? policy)
    {
        if (policy is not (null or "Always"))
        {
            yield return new("spec.template.spec.restartPolicy",
                $"must be Always or absent, not {policy}: a GpuDeployment keeps its pods running, and paused stops them");
        }
    }

    private static IEnumerable<FieldError> GpuContainer(GpuDeploymentSpec spec)
    {
        if (spec.Gpu?.Container is { } name && spec.Template?.Spec?.Containers is { Count: > 0 } containers
            && containers.All(container => container?.Name != name))
        {
            yield return new("spec.gpu.container",
                $"\"{name}\" is no container of spec.template: name one of {string.Join(", ", containers.Select(c => c?.Name))}, " +
                "or leave it out and the first gets the GPUs");
        }
    }

    private static IEnumerable<FieldError> DisplayName(string? name)
    {
        if (name is { Length: > Formats.DisplayNameMaxLength })
        {
            yield return new("spec.displayName", $"is {name.Length} characters long: use at most {Formats.DisplayNameMaxLength}");
        }
    }

    private static IEnumerable<FieldError> CardGracePeriod(string? period)
    {
        if (period is not null && !Quantities.TryDuration(period, out _))
        {
            yield return new("spec.cardGracePeriod", $"\"{period}\" is not a duration: write it like 24h, 90m or 1h30m");
        }
    }

    private static IEnumerable<FieldError> TimeZone(string? zone)
    {
        // The looks come first: the time zone's name becomes a path below /usr/share/zoneinfo.
        if (zone is not null
            && !(Formats.Matches(zone, Formats.TimeZone, Formats.TimeZoneMaxLength) && TimeZoneInfo.TryFindSystemTimeZoneById(zone, out _)))
        {
            yield return new("spec.timeZone", $"\"{zone}\" is not a known IANA time zone: write it like Europe/Berlin, or UTC");
        }
    }

    private static IEnumerable<FieldError> GpuPrice(string field, GpuPriceEntry price)
    {
        if (!IsProduct(price.Product))
        {
            yield return new($"{field}.product", NotAProduct(price.Product));
        }

        foreach (var error in Price($"{field}.perHour", price.PerHour))
        {
            yield return error;
        }
    }

    private static IEnumerable<FieldError> ServerlessPrice(string field, ServerlessPriceEntry price)
    {
        if (string.IsNullOrEmpty(price.Model) || !Formats.Matches(price.Model, Formats.Model, Formats.ModelMaxLength))
        {
            yield return new($"{field}.model", $"\"{price.Model}\" is not a model's id: write it like openai/gpt-oss-20b");
        }

        foreach (var error in Price($"{field}.inputPerMillion", price.InputPerMillion)
            .Concat(Price($"{field}.outputPerMillion", price.OutputPerMillion))
            .Concat(Price($"{field}.cachedPerMillion", price.CachedPerMillion)))
        {
            yield return error;
        }
    }

    private static IEnumerable<FieldError> Price(string field, string? text) =>
        string.IsNullOrEmpty(text) ? [new(field, "is missing: write dollars in quotes, like \"2.50\", or \"0\"")] : Amount(field, text);

    private static IEnumerable<FieldError> Amount(string field, string? text, decimal? above = null)
    {
        if (text is null)
        {
            yield break;
        }

        if (text.StartsWith('-'))
        {
            yield return new(field, $"\"{text}\" is negative: write dollars like \"20.00\", with no sign");
        }
        else if (!Quantities.TryDollars(text, out var dollars))
        {
            yield return new(field,
                $"\"{text}\" is not an amount of dollars: write it like \"20.00\", with at most 9 digits on each side of the point");
        }
        else if (dollars <= above)
        {
            yield return new(field, $"must be above 0, not \"{text}\": leave it out for no limit, or set paused to stop the pods");
        }
    }

    private static IEnumerable<FieldError> AtMost(string field, int count, int bound)
    {
        if (count > bound)
        {
            yield return new(field, $"has {count} entries: use at most {bound}");
        }
    }

    private static IEnumerable<FieldError> Twice(string field, string key, string[] values)
    {
        for (var i = 0; i < values.Length; i++)
        {
            if (Array.IndexOf(values, values[i], 0, i) is >= 0 and var first)
            {
                yield return new($"{field}[{i}].{key}",
                    $"\"{values[i]}\" has a price already, at {field}[{first}]: keep one of the two");
            }
        }
    }

    private static bool IsProduct(string? product) =>
        product is not null && Formats.Matches(product, Formats.LabelValue, Formats.LabelValueMaxLength);

    private static string NotAProduct(string? product) =>
        $"\"{product}\" is not a GPU product: write it as the node's label {WellKnown.GpuProductLabel} does, like NVIDIA-H100-80GB-HBM3";
}
