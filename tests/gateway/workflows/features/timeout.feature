Feature: Timeout
  What takes longer than its limit ends as a timeout, which a handler may catch.

  Scenario: A task
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - slow:
        wait: PT1H
        timeout: {after: PT5M}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/spec/1.0.0/errors/timeout
    status: 408
    instance: /do/0/slow
    """
    And the run should take 300 seconds

  Scenario: A named limit
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use: {timeouts: {short: {after: {seconds: 10}}}}
    do:
    - slow: {wait: PT1H, timeout: short}
    """
    When the workflow is executed
    Then the workflow should fault
    And the run should take 10 seconds

  Scenario: The whole workflow
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    timeout: {after: PT1M}
    do:
    - first: {wait: PT40S}
    - second: {wait: PT40S}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: https://open-workflow-specification.org/spec/1.0.0/errors/timeout
    """
    And the run should take 60 seconds

  Scenario: A handler catches it
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - slow: {wait: PT1H, timeout: {after: PT1S}}
        catch:
          errors: {with: {status: 408}}
          do:
          - instead: {set: {late: true}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    late: true
    """

  Scenario: An answer in time
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.tool
        with: {tool: stock.check, arguments: {}}
        timeout: {after: PT10S}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: 1, after: PT9S}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    1
    """

  Scenario: An answer too late
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - ask:
        call: gateway.tool
        with: {tool: stock.check, arguments: {}}
        timeout: {after: PT10S}
    """
    And given the answers of steps are:
    """yaml
    ask: {output: 1, after: PT11S}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    status: 408
    """
    And the run should take 10 seconds
