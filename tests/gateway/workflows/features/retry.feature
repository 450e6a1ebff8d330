Feature: Retry
  A failed step is tried again as its policy says, and no more often.

  Scenario: Success after two failures
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: PT2S, limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: [{error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {output: {left: 3}}]
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """
    And ask should run 3 times
    And the run should take 4 seconds

  Scenario: A delay of days
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: P1D, limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: [{error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {output: {left: 3}}]
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    left: 3
    """
    And ask should run 3 times
    And the run should take 172800 seconds

  Scenario: Exponential delays
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: PT1S, backoff: {exponential: {factor: 3}}, limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: [{error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {output: 1}]
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    1
    """
    And the run should take 13 seconds

  Scenario: Linear delays
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: PT1S, backoff: {linear: {increment: 2000}}, limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: [{error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {output: 1}]
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    1
    """
    And the run should take 9 seconds

  Scenario: The attempts are used up
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: PT1S, limit: {attempt: {count: 2}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    status: 503
    instance: /do/0/guarded/try/0/ask
    """
    And ask should run 3 times

  Scenario: The time of all attempts is used up
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {delay: PT1M, limit: {duration: PT3M}}
    """
    And given the answers of steps are:
    """yaml
    ask: {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}
    """
    When the workflow is executed
    Then the workflow should fault
    And ask should run 4 times
    And the run should take 180 seconds

  Scenario: Another error is not tried again
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: {error: {type: 'urn:x', status: 400}}
    """
    When the workflow is executed
    Then the workflow should fault with error:
    """yaml
    type: urn:x
    """
    And ask should run 1 time

  Scenario: A condition ends the attempts
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: {when: $error.detail != "final", limit: {attempt: {count: 5}}}
    """
    And given the answers of steps are:
    """yaml
    ask: [{error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}, {error: {type: 'urn:x', status: 503, detail: final}}]
    """
    When the workflow is executed
    Then the workflow should fault
    And ask should run 2 times

  Scenario: A named policy, and a handler for what is left
    Given a workflow with definition:
    """yaml
    document: {dsl: '1.0.3', namespace: tests, name: example, version: '1.0.0'}
    use: {retries: {twice: {limit: {attempt: {count: 1}}}}}
    do:
    - guarded:
        try:
        - ask:
            call: gateway.tool
            with: {tool: stock.check, arguments: {}}
        catch:
          errors: {with: {status: 503}}
          retry: twice
          do:
          - instead: {set: {why: '${ $error.status }'}}
    """
    And given the answers of steps are:
    """yaml
    ask: {error: {type: 'https://open-workflow-specification.org/spec/1.0.0/errors/communication', status: 503}}
    """
    When the workflow is executed
    Then the workflow should complete with output:
    """yaml
    why: 503
    """
    And ask should run 2 times
